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

// checkContentType returns a 415 unless the body is plain JSON. Legacy REST clients may
// leave the type out.
func (rt *route) checkContentType(r *http.Request) error {
	refuse := func(message string) error {
		return problem.New(http.StatusUnsupportedMediaType, fault.New(fault.BadRequest, "%s", message))
	}
	if encoding := r.Header.Get("Content-Encoding"); encoding != "" && !strings.EqualFold(encoding, "identity") {
		return refuse("The request body must not be compressed.")
	}
	value := strings.TrimSpace(strings.Join(r.Header.Values("Content-Type"), ","))
	if value == "" || value == mediaJSON {
		return nil
	}
	name, params, err := mime.ParseMediaType(value)
	charset, given := params["charset"]
	switch {
	case err != nil || name != mediaJSON && (name != mediaMergePatch || rt.method != http.MethodPatch):
		return refuse("The request body must be application/json, or for PATCH application/merge-patch+json.")
	case given && !strings.EqualFold(charset, "utf-8") && !strings.EqualFold(charset, "utf8"):
		return refuse("The request body must be in UTF-8.")
	}
	return nil
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
