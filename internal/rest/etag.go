package rest

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"net/http"
	"slices"
	"strconv"
	"strings"

	"github.com/backplane-dev/backplane/internal/fault"
	"github.com/backplane-dev/backplane/internal/problem"
)

// entityTag returns the ETag of a response: the version of its object, 0 for a list, and
// a digest of its bytes.
func entityTag(version int, body []byte) string {
	sum := sha256.Sum256(body)
	return `"` + strconv.Itoa(version) + "-" + base64.RawURLEncoding.EncodeToString(sum[:12]) + `"`
}

// contentEncodings are those that the middleware appends to the tags of responses that it
// compresses.
var contentEncodings = []string{"gzip", "zstd"}

// matchingTag returns the tag by which If-None-Match names the response, weak or strong, as it is
// or in one of the encodings; empty if the client has it not.
func matchingTag(r *http.Request, tag string, encodings []string) string {
	known := []string{tag}
	for _, encoding := range encodings {
		known = append(known, strings.TrimSuffix(tag, `"`)+"-"+encoding+`"`)
	}
	for _, value := range r.Header.Values(ifNoneMatch) {
		for part := range strings.SplitSeq(value, ",") {
			part = strings.TrimPrefix(strings.TrimSpace(part), "W/")
			if part == "*" {
				return tag
			}
			if slices.Contains(known, part) {
				return part
			}
		}
	}
	return ""
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
