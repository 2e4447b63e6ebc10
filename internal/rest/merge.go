package rest

import (
	"encoding/json"
	"maps"
	"net/http"

	"github.com/vektah/gqlparser/v2/ast"

	"github.com/backplane-dev/backplane/internal/executor"
	"github.com/backplane-dev/backplane/internal/fault"
)

// maxMergeAttempts bounds how often a patch is merged because the object has changed
// meanwhile.
const maxMergeAttempts = 3

// runOperation runs the operation of a bound request. A merge patch (RFC 7396) of a part
// of a nested object is completed with the result of GET, for the version of that result:
// if the object has changed by then, it is completed again.
func (s *Shim) runOperation(r *http.Request, rt *route, in *boundRequest) (*result, error) {
	parts := in.patchParts(r)
	if len(parts) == 0 {
		return s.runOnce(r, rt, in)
	}
	for try := 1; ; try++ {
		if err := s.completePatch(r, rt, in, parts); err != nil {
			return nil, err
		}
		res, err := s.runOnce(r, rt, in)
		if in.exact || try == maxMergeAttempts || !fault.Is(err, fault.VersionConflict) || len(fault.From(err).Path) == 0 {
			return res, err
		}
	}
}

// runOnce runs the operation with the variables as they are.
func (s *Shim) runOnce(r *http.Request, rt *route, in *boundRequest) (*result, error) {
	op, err := s.prepareOperation(r.Context(), rt, in)
	if err != nil {
		return nil, err
	}
	resp, err := s.exec.Run(r.Context(), op)
	if err != nil {
		s.reportError(r.Context(), err)
		return nil, err
	}
	return rt.readResult(in, resp)
}

// patchPart is a property of a merge patch whose value is an object.
type patchPart struct {
	*param
	patch map[string]any
}

// patchParts returns the properties of a patch that are to be merged. A call with an
// idempotency key must state the one version it changes, since its meaning must not depend on
// when it arrives.
func (b *boundRequest) patchParts(r *http.Request) (parts []patchPart) {
	if b.rt.method != http.MethodPatch || b.rt.reads == nil || len(b.problems) > 0 {
		return nil
	}
	if executor.IdempotencyKey(r.Context()) != "" && !b.exact {
		return nil
	}
	for _, p := range b.rt.params {
		if len(p.from.Body) == 0 || p.Type.Elem != nil || b.schema.Types[p.Type.NamedType].Kind != ast.InputObject {
			continue
		}
		if patch, ok := b.variables[p.Variable].(map[string]any); ok {
			parts = append(parts, patchPart{p, patch})
		}
	}
	return parts
}

// completePatch merges the parts into the result of GET.
func (s *Shim) completePatch(r *http.Request, rt *route, in *boundRequest, parts []patchPart) error {
	res, err := s.readCurrent(r, rt)
	if err != nil {
		return err
	}
	for _, p := range parts {
		var current any
		if text := findMember(res.value, p.from.Body[0]); len(text) > 0 {
			if err := json.Unmarshal(text, &current); err != nil {
				return err
			}
		}
		in.variables[p.Variable] = mergePatch(toSchemaNames(in.schema, p.Type, current), p.patch)
	}
	for _, p := range rt.params {
		if p.isVersion() && !in.exact && res.version > 0 {
			in.variables[p.Variable] = res.version
		}
	}
	return nil
}

// mergePatch applies a merge patch to a value (RFC 7396, section 2).
func mergePatch(target, patch any) any {
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
		out[name] = mergePatch(out[name], v)
	}
	return out
}

// siblingRoute returns the route of a method of the same path, for the same callers: of GET one
// that reads, not a stream. Nil if there is none.
func (res *resource) siblingRoute(rt *route, method string) *route {
	e := res.methods[method]
	if e == nil {
		return nil
	}
	for _, other := range e.routes {
		if other.op.Operation != ast.Subscription && (other.when == anyCaller || other.when == rt.when) {
			return other
		}
	}
	return nil
}

// emptyRemoved gives each property that a merge patch removes with null the value that PUT gives
// one that is left out, if that is empty: text, a list or a map. Other properties cannot be removed.
func (b *boundRequest) emptyRemoved() {
	put := b.rt.replaces
	if b.rt.method != http.MethodPatch || put == nil {
		return
	}
	for _, p := range b.rt.params {
		v, given := b.variables[p.Variable]
		replacement := put.paramOf(p.Variable)
		if !given || v != nil || replacement == nil || replacement.DefaultValue == nil {
			continue
		}
		switch def := replacement.DefaultValue; {
		case def.Kind == ast.StringValue && def.Raw == "":
			b.variables[p.Variable] = ""
		case def.Kind == ast.ListValue && len(def.Children) == 0:
			b.variables[p.Variable] = []any{}
		case def.Kind == ast.ObjectValue && len(def.Children) == 0:
			b.variables[p.Variable] = map[string]any{}
		}
	}
}
