package httpd

import (
	"mime"
	"net/http"
	"strconv"
	"strings"

	"github.com/backplane-dev/backplane/internal/executor"
	"github.com/backplane-dev/backplane/internal/fault"
	"github.com/backplane-dev/backplane/internal/problem"
)

// mediaType is a media type that GraphQL responses are sent as.
type mediaType string

const (
	mediaJSON    mediaType = "application/json"                  // the status is that of the HTTP request
	mediaGraphQL mediaType = "application/graphql-response+json" // the status is that of the operation
	mediaEvents  mediaType = "text/event-stream"                 // one event per result
)

// refusalStatus returns the status for a request that was not run. Clients that know only
// application/json must not take a document's error for one of the server or a proxy: they get
// 200.
func (m mediaType) refusalStatus(stage executor.Stage) int {
	if m == mediaJSON && stage != executor.StageRequest {
		return http.StatusOK
	}
	return http.StatusBadRequest
}

// negotiate returns the media type that the client prefers (Accept), or a 406.
func negotiate(r *http.Request) (mediaType, error) {
	accept := strings.Join(r.Header.Values("Accept"), ",")
	if strings.TrimSpace(accept) == "" {
		return mediaJSON, nil
	}
	best, quality := mediaType(""), 0.0
	for part := range strings.SplitSeq(accept, ",") {
		m, q := parseAccept(part)
		if q > quality {
			best, quality = m, q
		}
	}
	if best == "" {
		return "", problem.New(http.StatusNotAcceptable, fault.New(fault.BadRequest,
			"This endpoint answers with application/graphql-response+json, application/json or text/event-stream."))
	}
	return best, nil
}

// parseAccept returns the media type in one part of an Accept header and its quality; zero for
// a type that we do not have.
func parseAccept(part string) (mediaType, float64) {
	name, params, err := mime.ParseMediaType(part)
	if err != nil || !isUTF8(params) {
		return "", 0
	}
	q := 1.0
	if s, ok := params["q"]; ok {
		if q, err = strconv.ParseFloat(s, 64); err != nil || q < 0 || q > 1 {
			return "", 0
		}
	}
	switch name {
	case string(mediaGraphQL), string(mediaEvents):
		return mediaType(name), q
	case string(mediaJSON), "application/*", "*/*":
		return mediaJSON, q
	}
	return "", 0
}

func isUTF8(params map[string]string) bool {
	charset, ok := params["charset"]
	return !ok || strings.EqualFold(charset, "utf-8") || strings.EqualFold(charset, "utf8")
}

// checkContentType returns a 415 unless the body is plain JSON. Browsers send JSON to another
// site only after a preflight, but forms and text without one (CSRF).
func checkContentType(r *http.Request) error {
	name, params, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	encoding := r.Header.Get("Content-Encoding")
	switch {
	case err != nil || name != string(mediaJSON) || !isUTF8(params) || len(r.Header.Values("Content-Type")) != 1:
		return problem.New(http.StatusUnsupportedMediaType, fault.New(fault.BadRequest,
			"The request must have the content type application/json, in UTF-8."))
	case encoding != "" && !strings.EqualFold(encoding, "identity"):
		return problem.New(http.StatusUnsupportedMediaType, fault.New(fault.BadRequest,
			"The request body must not be compressed."))
	}
	return nil
}
