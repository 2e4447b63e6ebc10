package rest

import (
	"maps"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"github.com/vektah/gqlparser/v2/ast"

	"github.com/backplane-dev/backplane/internal/executor"
	"github.com/backplane-dev/backplane/internal/fault"
	"github.com/backplane-dev/backplane/internal/httpd/jsoncodec"
	"github.com/backplane-dev/backplane/internal/problem"
)

const ifNoneMatch = "If-None-Match"

// readCurrent returns what GET of the request's path shows to the caller.
func (s *Shim) readCurrent(r *http.Request, rt *route) (*result, error) {
	get := *r
	get.URL = &url.URL{Path: r.URL.Path, RawPath: r.URL.RawPath} // parameters of the query concern the change
	in, err := s.bindRequest(&get, rt.reads)
	if err != nil {
		return nil, err
	}
	return s.runOnce(&get, rt.reads, in)
}

// runChecked runs the operation of a bound request if its conditions hold. If the object has changed after they were
// evaluated, they are evaluated again.
func (s *Shim) runChecked(r *http.Request, rt *route, in *boundRequest) (*result, error) {
	bound := maps.Clone(in.variables)
	for try := 1; ; try++ {
		if err := s.checkCurrent(r, rt, in); err != nil {
			return nil, err
		}
		in.emptyRemoved()
		res, err := s.runOperation(r, rt, in)
		if !in.pinned || try == maxMergeAttempts || !fault.Is(err, fault.VersionConflict) {
			return res, err
		}
		in.variables = maps.Clone(bound)
	}
}

// pinVersion makes a change with If-None-Match one of the version that the condition was evaluated at, so that
// no other change comes between. With an idempotency key it must not depend on when the call arrives what it means.
func (b *boundRequest) pinVersion(r *http.Request, version int) {
	if b.matched || version == 0 || executor.IdempotencyKey(r.Context()) != "" {
		return
	}
	for _, p := range b.rt.params {
		if p.isVersion() {
			b.variables[p.Variable], b.pinned = version, true
		}
	}
}

// checkCurrent compares a change with what is stored: If-None-Match, and properties that can only
// be read. It reads what is stored only if it must.
func (s *Shim) checkCurrent(r *http.Request, rt *route, in *boundRequest) error {
	conditional := rt.isConditional(r)
	if conditional && rt.reads == nil {
		return errNoneMatch("This path cannot be read, so If-None-Match does not hold; leave it out.", 0)
	}
	if rt.reads == nil || r.Method == http.MethodPost || !conditional && len(in.unknown) == 0 {
		in.refuseUnknownProperties(nil)
		return nil
	}
	res, err := s.readCurrent(r, rt)
	switch {
	case err != nil && fault.From(err).Kind() == fault.KindNotFound:
		in.refuseUnknownProperties(nil)
		return nil // nothing is stored, so nothing matches
	case err != nil:
		return err
	case conditional && rt.reads.matchesNone(r, res):
		return errNoneMatch("It is stored as If-None-Match says that it must not be.", res.version)
	}
	if conditional {
		in.pinVersion(r, res.version)
	}
	if len(in.unknown) > 0 {
		v, err := jsoncodec.Decode(rt.reads.renderBody(res))
		if err != nil {
			return err
		}
		shown, _ := v.(map[string]any)
		in.refuseUnknownProperties(shown)
	}
	return nil
}

// isConditional reports whether a change has an If-None-Match. That of POST is none of the
// resource at the path, and that of a read is evaluated once the response is known.
func (rt *route) isConditional(r *http.Request) bool {
	return rt.op.Operation == ast.Mutation && r.Method != http.MethodPost && len(r.Header.Values(ifNoneMatch)) > 0
}

// matchesNone reports whether If-None-Match names what GET shows: with *, by its version or, without
// one, by its tag.
func (rt *route) matchesNone(r *http.Request, shown *result) bool {
	if matchingTag(r, entityTag(shown.version, rt.renderBody(shown)), contentEncodings) != "" {
		return true
	}
	version := strconv.Itoa(shown.version)
	for part := range strings.SplitSeq(strings.Join(r.Header.Values(ifNoneMatch), ","), ",") {
		tag := strings.Trim(strings.TrimPrefix(strings.TrimSpace(part), "W/"), `"`)
		if digits, _, _ := strings.Cut(tag, "-"); shown.version > 0 && digits == version {
			return true
		}
	}
	return false
}

func errNoneMatch(message string, version int) error {
	return &problem.Error{Status: http.StatusPreconditionFailed, Fault: fault.New(fault.VersionConflict, "%s", message), Version: version}
}
