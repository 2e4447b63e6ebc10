package rest

import (
	"mime"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/backplane-dev/backplane/internal/fault"
	"github.com/backplane-dev/backplane/internal/problem"
	"github.com/backplane-dev/backplane/internal/static"
)

const (
	mediaJSON       = "application/json"
	mediaMergePatch = "application/merge-patch+json"
	mediaForm       = "application/x-www-form-urlencoded"
	mediaEvents     = "text/event-stream"
)

// checkAccept returns a 406 unless the client accepts JSON. A client without Accept
// accepts anything.
func checkAccept(r *http.Request) error {
	values := r.Header.Values("Accept")
	if len(values) == 0 || len(values) == 1 && (values[0] == mediaJSON || values[0] == "*/*") {
		return nil
	}
	accept := strings.Join(values, ",")
	if strings.TrimSpace(accept) == "" {
		return nil
	}
	// The most specific range that covers JSON decides (RFC 9110, 12.5.1).
	best, quality := -1, 0.0
	for part := range strings.SplitSeq(accept, ",") {
		name, params, err := mime.ParseMediaType(part)
		if err != nil {
			continue
		}
		rank := strings.Index("*/* application/* "+mediaJSON, name)
		if rank < 0 || rank <= best || !strings.Contains(name, "/") {
			continue
		}
		best, quality = rank, qualityOf(params)
	}
	if quality == 0 {
		return errNotAcceptable()
	}
	return nil
}

func qualityOf(params map[string]string) float64 {
	text, ok := params["q"]
	if !ok {
		return 1
	}
	q, err := strconv.ParseFloat(text, 64)
	if err != nil || q < 0 || q > 1 {
		return 0
	}
	return q
}

func errNotAcceptable() error {
	return problem.New(http.StatusNotAcceptable, fault.New(fault.BadRequest, "This path answers with application/json."))
}

func errMediaType(message string) error {
	return problem.New(http.StatusUnsupportedMediaType, fault.New(fault.BadRequest, "%s", message))
}

// mediaTypeOf returns the media type of the body, or a 415 unless it is plain JSON or a form. Legacy
// REST clients may leave the type of JSON out.
func (rt *route) mediaTypeOf(r *http.Request) (string, error) {
	if encoding := r.Header.Get("Content-Encoding"); encoding != "" && !strings.EqualFold(encoding, "identity") {
		return "", errMediaType("The request body must not be compressed.")
	}
	value := strings.TrimSpace(strings.Join(r.Header.Values("Content-Type"), ","))
	if value == "" || value == mediaJSON {
		return mediaJSON, nil
	}
	name, params, err := mime.ParseMediaType(value)
	charset, given := params["charset"]
	switch {
	case err != nil || name != mediaJSON && name != mediaForm && (name != mediaMergePatch || rt.method != http.MethodPatch):
		return "", errMediaType("The request body must be application/json or application/x-www-form-urlencoded, or for PATCH application/merge-patch+json.")
	case given && !strings.EqualFold(charset, "utf-8") && !strings.EqualFold(charset, "utf8"):
		return "", errMediaType("The request body must be in UTF-8.")
	}
	return name, nil
}

// acceptedEncodings returns the content encodings that the client can read.
func acceptedEncodings(r *http.Request) []string {
	return slices.DeleteFunc(slices.Clone(contentEncodings), func(encoding string) bool { return !static.AcceptsEncoding(r, encoding) })
}

// prefersMinimal reports whether the client asks for no body (RFC 7240).
func prefersMinimal(r *http.Request) bool {
	for _, value := range r.Header.Values("Prefer") {
		for part := range strings.SplitSeq(value, ",") {
			name, set, _ := strings.Cut(strings.TrimSpace(part), "=")
			set, _, _ = strings.Cut(set, ";")
			if strings.EqualFold(strings.TrimSpace(name), "return") && strings.EqualFold(strings.Trim(strings.TrimSpace(set), `"`), "minimal") {
				return true
			}
		}
	}
	return false
}
