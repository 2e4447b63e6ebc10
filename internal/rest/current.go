package rest

import (
	"context"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"github.com/vektah/gqlparser/v2/ast"

	"github.com/backplane-dev/backplane/internal/auth"
	"github.com/backplane-dev/backplane/internal/executor"
	"github.com/backplane-dev/backplane/internal/fault"
	"github.com/backplane-dev/backplane/internal/httpd/jsoncodec"
	"github.com/backplane-dev/backplane/internal/problem"
	"github.com/backplane-dev/backplane/internal/validate"
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

// runChecked runs the operation of a bound request if its conditions hold.
func (s *Shim) runChecked(r *http.Request, rt *route, in *boundRequest) (*result, error) {
	evaluated := rt.versioned() && rt.isConditional(r)
	if evaluated {
		in.bindIfNoneMatch(r)
	}
	if err := s.checkCurrent(r, rt, in, evaluated); err != nil {
		return nil, err
	}
	in.emptyRemoved()
	if in.condition != nil {
		r = r.WithContext(validate.WithCondition(r.Context(), *in.condition))
	}
	return s.runOperation(r, rt, in)
}

// versioned reports whether the operation takes the version that it changes: it evaluates all conditions
// in its transaction then.
func (rt *route) versioned() bool {
	return slices.ContainsFunc(rt.params, func(p *param) bool { return p.isVersion() })
}

// checkCurrent compares a change with what is stored: properties that can only be read and, unless the
// operation evaluates it, If-None-Match. It reads what is stored only if it must. A change without a version
// cannot have an If-Match, and one of a path that cannot be read no If-None-Match.
func (s *Shim) checkCurrent(r *http.Request, rt *route, in *boundRequest, evaluated bool) error {
	conditional := rt.isConditional(r) && !evaluated
	switch {
	case rt.op.Operation == ast.Mutation && len(r.Header.Values(ifMatch)) > 0 && !rt.versioned():
		return errPrecondition("What this path changes has no version, so If-Match does not hold; leave it out.", 0)
	case conditional && rt.reads == nil:
		return errPrecondition("This path cannot be read, so If-None-Match does not hold; leave it out.", 0)
	case rt.reads == nil || r.Method == http.MethodPost || !conditional && len(in.unknown) == 0:
		in.refuseUnknownProperties(nil)
		return nil
	}
	if used, err := s.isRepeat(r.Context(), in); used || err != nil {
		return err
	}
	res, err := s.readCurrent(r, rt)
	switch {
	case err != nil && fault.From(err).Kind() == fault.KindNotFound:
		in.refuseUnknownProperties(nil)
		return nil // nothing is stored, so nothing matches
	case err != nil:
		return err
	case conditional && rt.reads.matchesNone(r, res):
		return errPrecondition("It is stored as If-None-Match says that it must not be.", res.version)
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

// isRepeat reports whether the caller has used the idempotency key of the call before. What such a call
// shows to have read may have changed since then: the operation answers as it did, or refuses another call.
func (s *Shim) isRepeat(ctx context.Context, in *boundRequest) (bool, error) {
	caller, key := auth.From(ctx), executor.IdempotencyKey(ctx)
	if s.cfg.IsKeyUsed == nil || caller == nil || key == "" || len(in.problems) > 0 {
		return false, nil
	}
	used, err := s.cfg.IsKeyUsed(ctx, caller.UserID, key)
	if used {
		in.unknown = nil
	}
	return used, err
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

func errPrecondition(message string, version int) error {
	return &problem.Error{Status: http.StatusPreconditionFailed, Fault: fault.New(fault.VersionConflict, "%s", message), Version: version}
}
