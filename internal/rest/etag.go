package rest

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"net/http"
	"strconv"
	"strings"

	"github.com/backplane-dev/backplane/internal/fault"
	"github.com/backplane-dev/backplane/internal/problem"
)

// entityTag returns the ETag of a response: the version of its object, 0 for a list, and
// a digest of its bytes and their encoding.
func entityTag(version int, body []byte, encoding string) string {
	h := sha256.New()
	_, _ = h.Write(body)
	_, _ = h.Write([]byte(encoding))
	return `"` + strconv.Itoa(version) + "-" + base64.RawURLEncoding.EncodeToString(h.Sum(nil)[:12]) + `"`
}

// matchesNone reports whether the client has the response already: If-None-Match names
// its tag, weak or strong.
func matchesNone(r *http.Request, tag string) bool {
	for _, value := range r.Header.Values("If-None-Match") {
		for part := range strings.SplitSeq(value, ",") {
			part = strings.TrimPrefix(strings.TrimSpace(part), "W/")
			if part == tag || part == "*" {
				return true
			}
		}
	}
	return false
}

// bindIfMatch binds the version that If-Match names: any version for *, and none
// if the header is missing.
func (b *boundRequest) bindIfMatch(r *http.Request, p *param) error {
	b.origin[p.Variable] = valueSource{inHeader, ifMatch}
	values := r.Header.Values(ifMatch)
	if len(values) == 0 {
		if p.Type.NonNull {
			return problem.New(http.StatusPreconditionRequired, fault.New(fault.BadRequest,
				"Say with If-Match which version you change; GET shows it in its ETag."))
		}
		return nil
	}
	b.matched = true
	version, anyVersion, err := parseIfMatch(strings.Join(values, ","))
	if err != nil || anyVersion {
		return err
	}
	b.variables[p.Variable] = json.Number(strconv.Itoa(version))
	return nil
}

// parseIfMatch returns the version part of the single tag in If-Match; anyVersion for *. A tag
// without a version matches nothing. Weak tags count: a proxy that changes the bytes does
// not change the version.
func parseIfMatch(value string) (version int, anyVersion bool, err error) {
	value = strings.TrimSpace(value)
	if value == "*" {
		return 0, true, nil
	}
	tag := strings.TrimPrefix(value, "W/")
	inner, quoted := strings.CutPrefix(tag, `"`)
	if quoted {
		inner, quoted = strings.CutSuffix(inner, `"`)
	}
	digits, _, _ := strings.Cut(inner, "-")
	n, convErr := strconv.ParseInt(digits, 10, 32)
	switch {
	case strings.Contains(inner, ",") || strings.ContainsAny(inner, "\" "):
		return 0, false, fault.New(fault.BadRequest, "If-Match names one version here.")
	case convErr == nil && n >= 0 && (quoted || inner == digits):
		return int(n), false, nil
	case quoted:
		return 0, false, problem.New(http.StatusPreconditionFailed, fault.New(fault.VersionConflict,
			"It is not at the version that If-Match names, which is none of this server."))
	}
	return 0, false, fault.New(fault.BadRequest, `If-Match has an ETag such as "17-3vO1", or a version such as "17".`)
}
