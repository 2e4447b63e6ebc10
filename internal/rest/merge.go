package rest

import (
	"encoding/json"
	"maps"
	"net/http"

	"github.com/vektah/gqlparser/v2/ast"

	"github.com/backplane-dev/backplane/internal/executor"
	"github.com/backplane-dev/backplane/internal/fault"
)

// mergeTries bounds how often a patch is merged again because somebody else changed
// the object meanwhile.
const mergeTries = 3

// perform runs the operation of a bound request. A merge patch (RFC 7396) that gives
// a part of an object inside is completed with what GET shows, for the version that
// GET showed: if that has passed by then, it is completed anew.
func (s *Shim) perform(r *http.Request, rt *route, in *bound) (*result, error) {
	parts := in.parts(r)
	if len(parts) == 0 {
		return s.once(r, rt, in)
	}
	for try := 1; ; try++ {
		if err := s.complete(r, rt, in, parts); err != nil {
			return nil, err
		}
		res, err := s.once(r, rt, in)
		if in.matched || try == mergeTries || !fault.Is(err, fault.VersionConflict) {
			return res, err
		}
	}
}

// once runs the operation with the variables as they are.
func (s *Shim) once(r *http.Request, rt *route, in *bound) (*result, error) {
	op, err := s.prepare(r.Context(), rt, in)
	if err != nil {
		return nil, err
	}
	return rt.read(in, s.exec.Run(r.Context(), op))
}

// part is a property of a merge patch that is an object.
type part struct {
	*param
	patch map[string]any
}

// parts returns the properties of a patch that are to be merged. A call that may be
// repeated under its key must say itself which version it changes: what it means
// must not depend on when it comes.
func (b *bound) parts(r *http.Request) (parts []part) {
	if b.rt.method != http.MethodPatch || b.rt.shows == nil || len(b.problems) > 0 {
		return nil
	}
	if executor.IdempotencyKey(r.Context()) != "" && !b.matched {
		return nil
	}
	for _, p := range b.rt.params {
		if len(p.from.Body) == 0 || p.Type.Elem != nil || b.schema.Types[p.Type.NamedType].Kind != ast.InputObject {
			continue
		}
		if patch, ok := b.variables[p.Variable].(map[string]any); ok {
			parts = append(parts, part{p, patch})
		}
	}
	return parts
}

// complete merges the parts into what GET shows of the object.
func (s *Shim) complete(r *http.Request, rt *route, in *bound, parts []part) error {
	shown, err := s.bind(r, rt.shows)
	if err != nil {
		return err
	}
	res, err := s.once(r, rt.shows, shown)
	if err != nil {
		return err
	}
	for _, p := range parts {
		var current any
		if text := find(res.value, p.from.Body[0]); len(text) > 0 {
			if err := json.Unmarshal(text, &current); err != nil {
				return err
			}
		}
		in.variables[p.Variable] = merge(camel(in.schema, p.Type, current), p.patch)
	}
	for _, p := range rt.params {
		if p.isVersion() && !in.matched && res.version > 0 {
			in.variables[p.Variable] = res.version
		}
	}
	return nil
}

// merge applies a merge patch to a value (RFC 7396, section 2).
func merge(target, patch any) any {
	changes, ok := patch.(map[string]any)
	if !ok {
		return patch
	}
	out := map[string]any{}
	if old, ok := target.(map[string]any); ok {
		maps.Copy(out, old)
	}
	for name, v := range changes {
		if v == nil {
			delete(out, name)
			continue
		}
		out[name] = merge(out[name], v)
	}
	return out
}

// showing returns the operation that shows what a route changes: GET of the path,
// for the same callers. Nil if there is none.
func (res *resource) showing(rt *route) *route {
	e := res.methods[http.MethodGet]
	if e == nil {
		return nil
	}
	for _, other := range e.routes {
		if other.op.Operation == ast.Query && (other.when == anybody || other.when == rt.when) {
			return other
		}
	}
	return nil
}
