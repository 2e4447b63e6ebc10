package gateway

import (
	"net/http"
	"net/url"
	"strings"

	"github.com/backplane-dev/backplane/internal/fault"
	"github.com/backplane-dev/backplane/internal/registry"
	"github.com/backplane-dev/backplane/internal/validate"
)

// Prefix is the path that the gateway is mounted at.
const Prefix = "/gateway/"

// target is the service and the rest of a request's path. Rest is still escaped; it is empty or begins
// with a slash.
type target struct{ service, rest string }

// parseTarget splits the escaped path of a request. It refuses dot segments, by which a request could
// leave the path of an instance's URL.
func parseTarget(escaped string) (t target, err error) {
	text, ok := strings.CutPrefix(escaped, Prefix)
	if !ok {
		return t, fault.New(fault.NotFound, "There is nothing at this path.")
	}
	t.service, t.rest = text, ""
	if i := strings.IndexByte(text, '/'); i >= 0 {
		t.service, t.rest = text[:i], text[i:]
	}
	if !validate.IsServiceName(t.service) {
		return t, fault.New(registry.CodeServiceNotFound, "There is no service of this name.")
	}
	plain, err := url.PathUnescape(t.rest)
	if err != nil || hasDotSegment(plain) {
		return t, fault.New(fault.BadRequest, "A path must have no segments that are . or .., nor malformed escapes.")
	}
	return t, nil
}

// hasDotSegment reports whether any server could read a segment of the path as . or .., with escaped
// slashes, backslashes, or parameters after a semicolon.
func hasDotSegment(path string) bool {
	for segment := range strings.FieldsFuncSeq(path, func(r rune) bool { return r == '/' || r == '\\' }) {
		segment, _, _ = strings.Cut(segment, ";")
		if segment == "." || segment == ".." {
			return true
		}
	}
	return false
}

// urlOn returns the URL of the target on the instance at base, with the query of the request.
func (t target) urlOn(base *url.URL, r *http.Request) *url.URL {
	raw := base.EscapedPath() + t.rest
	if raw == "" {
		raw = "/"
	}
	path, err := url.PathUnescape(raw)
	if err != nil {
		path = raw // cannot happen: both parts unescaped before
	}
	return &url.URL{Scheme: base.Scheme, Host: base.Host, Path: path, RawPath: raw, RawQuery: r.URL.RawQuery, ForceQuery: r.URL.ForceQuery}
}
