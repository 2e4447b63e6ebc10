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
	"github.com/backplane-dev/backplane/internal/validate"
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
	versions, anyVersion, err := parseIfMatch(strings.Join(values, ","))
	switch {
	case err != nil || anyVersion:
		return err
	case len(versions) == 1:
		b.variables[p.Variable], b.exact = json.Number(strconv.Itoa(versions[0])), true
		return nil
	case p.Type.NonNull:
		return fault.New(fault.BadRequest, "If-Match names one version here.")
	}
	b.addCondition().OneOf = versions
	return nil
}

// addCondition returns the condition of the request, to be added to.
func (b *boundRequest) addCondition() *validate.Condition {
	if b.condition == nil {
		b.condition = &validate.Condition{}
	}
	return b.condition
}

// bindIfNoneMatch makes If-None-Match of a change a condition that is evaluated in its transaction, by the
// versions of its tags.
func (b *boundRequest) bindIfNoneMatch(r *http.Request) {
	b.matched = true
	for part := range strings.SplitSeq(strings.Join(r.Header.Values(ifNoneMatch), ","), ",") {
		if tag := strings.TrimSpace(part); tag == "*" {
			b.addCondition().Absent = true
		} else if version, ok := versionOfTag(strings.Trim(strings.TrimPrefix(tag, "W/"), `"`)); ok {
			b.addCondition().NoneOf = append(b.addCondition().NoneOf, version)
		}
	}
}

// versionOfTag returns the version part of what stands between the quotes of a tag.
func versionOfTag(tag string) (version int, ok bool) {
	digits, _, _ := strings.Cut(tag, "-")
	n, err := strconv.ParseUint(digits, 10, 31)
	return int(n), err == nil
}

// parseIfMatch returns the version parts of the tags in If-Match; anyVersion for *. A tag without a
// version matches nothing, and if no tag has one this is a 412. Weak tags count: a proxy that changes the
// bytes does not change the version.
func parseIfMatch(value string) (versions []int, anyVersion bool, err error) {
	parts := slices.DeleteFunc(strings.Split(value, ","), func(part string) bool { return strings.TrimSpace(part) == "" })
	if len(parts) == 1 && strings.TrimSpace(parts[0]) == "*" {
		return nil, true, nil
	}
	for _, part := range parts {
		inner := strings.TrimPrefix(strings.TrimSpace(part), "W/")
		tag, quoted := strings.CutPrefix(inner, `"`)
		if quoted {
			tag, quoted = strings.CutSuffix(tag, `"`)
		}
		version, ok := versionOfTag(tag)
		switch {
		case strings.ContainsAny(tag, "\" ") || !quoted && (!ok || strings.Contains(tag, "-")):
			return nil, false, errMalformedIfMatch()
		case ok:
			versions = append(versions, version)
		}
	}
	switch {
	case len(parts) == 0:
		return nil, false, errMalformedIfMatch()
	case len(versions) == 0:
		return nil, false, problem.New(http.StatusPreconditionFailed, fault.New(fault.VersionConflict,
			"It is not at the version that If-Match names, which is none of this server."))
	}
	return versions, false, nil
}

func errMalformedIfMatch() error {
	return fault.New(fault.BadRequest, `If-Match has ETags such as "17-3vO1", a version such as "17", or *.`)
}
