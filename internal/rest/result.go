package rest

import (
	"cmp"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"

	"github.com/99designs/gqlgen/graphql"
	"github.com/vektah/gqlparser/v2/ast"
	"github.com/vektah/gqlparser/v2/gqlerror"

	"github.com/backplane-dev/backplane/internal/executor"
	"github.com/backplane-dev/backplane/internal/fault"
	"github.com/backplane-dev/backplane/internal/problem"
)

// result is what an operation that went well gave.
type result struct {
	value   []byte // as the data has it; null only of what may be null
	version int    // of what it shows, 0 if that has none
	page    *pageInfo
}

// pageInfo is PageInfo of the schema.
type pageInfo struct {
	HasNextPage     bool    `json:"hasNextPage"`
	HasPreviousPage bool    `json:"hasPreviousPage"`
	StartCursor     *string `json:"startCursor"`
	EndCursor       *string `json:"endCursor"`
}

// userError is UserError of the schema.
type userError struct {
	Code    fault.Code `json:"code"`
	Message string     `json:"message"`
	Path    []string   `json:"path"`
}

// read takes the answer out of a response, or the error that it stands for.
func (rt *route) read(in *bound, resp *graphql.Response) (*result, error) {
	if len(resp.Errors) > 0 {
		return nil, rt.failed(in, faultOf(resp.Errors[0]))
	}
	root := find(resp.Data, rt.answer.way[0])
	if rt.answer.errors {
		if err := rt.userErrors(in, root); err != nil {
			return nil, err
		}
	}
	value := findAll(resp.Data, rt.answer.way)
	if len(value) == 0 || string(value) == "null" || rt.isAbsent(value) {
		return nil, rt.answer.absent
	}
	res := &result{value: value}
	if rt.answer.versioned {
		res.version = versionOf(value)
	}
	if rt.answer.page {
		way := rt.answer.way
		res.page = &pageInfo{}
		if err := json.Unmarshal(find(findAll(resp.Data, way[:len(way)-1]), pageKey), res.page); err != nil {
			return nil, fmt.Errorf("read the page of %s: %w", rt.op.Name, err)
		}
	}
	return res, nil
}

// isAbsent reports whether an object counts as absent.
func (rt *route) isAbsent(object []byte) bool {
	a := rt.rest.Absent
	return a != nil && strings.Trim(string(find(object, absentKey)), `"`) == a.Value
}

func versionOf(object []byte) int {
	version := 0
	_ = json.Unmarshal(find(object, versionKey), &version) // what is no object has none
	return version
}

// faultOf returns the error that the executor shows. One that says of no input that
// it is at fault may still stand at an argument.
func faultOf(e *gqlerror.Error) *fault.Error {
	f := fault.From(cmp.Or[error](e.Err, e))
	if len(f.Path) > 0 || len(e.Path) < 2 {
		return f
	}
	var path []string
	for _, part := range e.Path[1:] {
		path = append(path, fmt.Sprint(part))
	}
	return f.At(path...)
}

// userErrors returns what keeps a mutation from being done, nil if nothing does.
func (rt *route) userErrors(in *bound, payload []byte) error {
	text := find(payload, errorsKey)
	if len(text) <= len("[]") {
		return nil
	}
	var all []userError
	if err := json.Unmarshal(text, &all); err != nil {
		return fmt.Errorf("read the userErrors of %s: %w", rt.op.Name, err)
	}
	var faults []*fault.Error
	for _, e := range all {
		faults = append(faults, fault.New(e.Code.Kind(), e.Code, "%s", e.Message).At(e.Path...))
	}
	err := rt.failed(in, faults...)
	if faults[0].Code == fault.VersionConflict {
		err.Version = versionOf(findAll(payload, rt.answer.way[1:]))
	}
	return err
}

// failed is the error that an operation ended with: the first fault decides, all
// are listed if they are about the input.
func (rt *route) failed(in *bound, faults ...*fault.Error) *problem.Error {
	e := &problem.Error{Status: rt.statusOf(in, faults[0]), Fault: faults[0]}
	for _, f := range faults {
		at, found := in.inputAt(f.Path)
		if !found && len(faults) == 1 {
			break // the detail says it all
		}
		at.Code, at.Detail = f.Code, f.Message
		e.Violations = append(e.Violations, at)
	}
	return e
}

// refused is the error of a request that was not run. Only what the client sent
// can be wrong with it: the document was prepared at start.
func (rt *route) refused(in *bound, refusal *executor.Refusal) error {
	if refusal.Stage != executor.StageCoerce {
		return rt.failed(in, faultOf(refusal.Errors[0]))
	}
	places := in.problems
	for _, e := range refusal.Errors {
		f := faultOf(e)
		at := in.placeOf(f.Path)
		at.Code, at.Detail = f.Code, f.Message
		places = append(places, at)
	}
	return unprocessable(places)
}

// unprocessable is the error of a request whose values are wrong.
func unprocessable(places []problem.Violation) error {
	f := fault.New(fault.Invalid, fault.BadInput, "%s", places[0].Detail)
	if len(places) > 1 {
		f.Message = fmt.Sprintf("The request has %d mistakes; errors lists them.", len(places))
	}
	return &problem.Error{Status: http.StatusUnprocessableEntity, Fault: f, Violations: places[:min(len(places), maxProblems)]}
}

// statusOf is the status of an error of a route.
func (rt *route) statusOf(in *bound, f *fault.Error) int {
	if status := rt.byCode[f.Code]; status != 0 {
		return status
	}
	switch {
	case f.Code == fault.VersionConflict && in.matched:
		return http.StatusPreconditionFailed
	case f.Code == fault.IdempotencyKeyReused:
		return http.StatusUnprocessableEntity
	case f.Kind == fault.Invalid && f.Code != fault.BadRequest && f.Code != fault.IdempotencyKeyInvalid:
		return http.StatusUnprocessableEntity
	}
	return problem.Status(f.Kind)
}

// inputAt returns where in the request the input at a path stands, as an error of
// the operation names it; found is false if the client did not send it.
func (b *bound) inputAt(path []string) (at problem.Violation, found bool) {
	if len(path) == 0 {
		return at, false
	}
	root := b.rt.answer.fields[0]
	if arg := root.Arguments.ForName(path[0]); arg != nil {
		return b.valueAt(arg.Value, path[1:])
	}
	if arg := root.Arguments.ForName("input"); arg != nil {
		return b.valueAt(arg.Value, path)
	}
	return at, false
}

// valueAt follows a path through a literal to the variable that it leads to.
func (b *bound) valueAt(v *ast.Value, path []string) (at problem.Violation, found bool) {
	for v != nil && v.Kind == ast.ObjectValue && len(path) > 0 {
		v, path = v.Children.ForName(path[0]), path[1:]
	}
	if v == nil || v.Kind != ast.Variable {
		return at, false
	}
	return b.placeOf(append([]string{v.Raw}, path...)), true
}
