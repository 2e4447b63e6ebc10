package rest

import (
	"cmp"
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"strings"

	"github.com/99designs/gqlgen/graphql"
	"github.com/vektah/gqlparser/v2/ast"
	"github.com/vektah/gqlparser/v2/gqlerror"

	"github.com/backplane-dev/backplane/internal/executor"
	"github.com/backplane-dev/backplane/internal/fault"
	"github.com/backplane-dev/backplane/internal/problem"
)

// result is the result of a successful operation.
type result struct {
	value   []byte // as in the data; null only if its type is nullable
	version int    // of the object, 0 if it has none
	page    *pageInfo
}

// pageInfo is PageInfo of the schema.
type pageInfo struct {
	HasNextPage     bool    `json:"hasNextPage"`
	HasPreviousPage bool    `json:"hasPreviousPage"`
	StartCursor     *string `json:"startCursor"`
	EndCursor       *string `json:"endCursor"`

	total int // of all pages, page.MaxCount+1 for more; -1 if unknown
}

// userError is UserError of the schema.
type userError struct {
	Code    fault.Code `json:"code"`
	Message string     `json:"message"`
	Path    []string   `json:"path"`
}

// readResult reads the result of a response, or its error.
func (rt *route) readResult(in *boundRequest, resp *graphql.Response) (*result, error) {
	if len(resp.Errors) > 0 {
		return nil, rt.problemOf(in, faultOf(resp.Errors[0]))
	}
	root := findMember(resp.Data, rt.answer.path[0])
	if rt.answer.errors {
		if err := rt.userErrors(in, root); err != nil {
			return nil, err
		}
	}
	value := findPath(resp.Data, rt.answer.path)
	if len(value) == 0 || string(value) == "null" || rt.isAbsent(value) {
		return nil, rt.answer.absent
	}
	res := &result{value: value}
	if rt.answer.versioned {
		res.version = versionOf(value)
	}
	if rt.answer.page {
		path := rt.answer.path
		connection := findPath(resp.Data, path[:len(path)-1])
		res.page = &pageInfo{total: -1}
		if err := json.Unmarshal(findMember(connection, pageKey), res.page); err != nil {
			return nil, fmt.Errorf("read the page of %s: %w", rt.op.Name, err)
		}
		if n, err := strconv.Atoi(string(findMember(connection, totalKey))); err == nil {
			res.page.total = n
		}
	}
	return res, nil
}

// isAbsent reports whether an object counts as absent.
func (rt *route) isAbsent(object []byte) bool {
	a := rt.rest.Absent
	return a != nil && strings.Trim(string(findMember(object, absentKey)), `"`) == a.Value
}

func versionOf(object []byte) int {
	version := 0
	_ = json.Unmarshal(findMember(object, versionKey), &version) // a value that is no object has none
	return version
}

// faultOf returns the fault behind an error of the executor. If that has no path to an
// input, the error's path in the response may name an argument.
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

// userErrors returns the problem of a mutation's userErrors, nil if it has none.
func (rt *route) userErrors(in *boundRequest, payload []byte) error {
	text := findMember(payload, errorsKey)
	if len(text) <= len("[]") {
		return nil
	}
	var all []userError
	if err := json.Unmarshal(text, &all); err != nil {
		return fmt.Errorf("read the userErrors of %s: %w", rt.op.Name, err)
	}
	var faults []*fault.Error
	for _, e := range all {
		faults = append(faults, fault.New(e.Code, "%s", e.Message).At(e.Path...))
	}
	err := rt.problemOf(in, faults...)
	if faults[0].Code == fault.VersionConflict {
		err.Version = versionOf(findPath(payload, rt.answer.path[1:]))
	}
	return err
}

// problemOf returns the problem of an operation that failed: the first fault determines
// status and code; faults about the input are all listed.
func (rt *route) problemOf(in *boundRequest, faults ...*fault.Error) *problem.Error {
	e := &problem.Error{Status: rt.statusOf(in, faults[0]), Fault: faults[0]}
	for i, f := range faults {
		at, found := in.inputViolation(f.Path)
		if !found && len(faults) == 1 {
			break // the detail is enough
		}
		if found {
			f = nameAsSent(f, at)
		}
		if i == 0 {
			e.Fault = f
		}
		at.Code, at.Detail = f.Code, f.Message
		e.Violations = append(e.Violations, at)
	}
	return e
}

// nameAsSent returns the fault with a message that begins with the name that the client sent, such as
// limit, rather than with that of the operation's input, such as first.
func nameAsSent(f *fault.Error, at problem.Violation) *fault.Error {
	text, ok := strings.CutPrefix(f.Message, f.Path[len(f.Path)-1]+" ")
	if !ok {
		return f
	}
	named := *f
	named.Message = at.Pointer[strings.LastIndexByte(at.Pointer, '/')+1:] + " " + text
	return &named
}

// problemOfRefusal returns the problem of a request that was not executed. Only the
// client's values can be wrong: the document was prepared at start.
func (rt *route) problemOfRefusal(in *boundRequest, refusal *executor.Refusal) error {
	if refusal.Stage != executor.StageCoerce {
		return rt.problemOf(in, faultOf(refusal.Errors[0]))
	}
	violations := in.problems
	for _, e := range refusal.Errors {
		f := faultOf(e)
		at := in.violationAt(f.Path)
		at.Code, at.Detail = f.Code, f.Message
		violations = append(violations, at)
	}
	return unprocessable(violations)
}

// unprocessable returns the problem of a request with invalid values.
func unprocessable(violations []problem.Violation) error {
	f := fault.New(fault.BadInput, "%s", violations[0].Detail)
	if len(violations) > 1 {
		f.Message = fmt.Sprintf("The request has %d mistakes; errors lists them.", len(violations))
	}
	return &problem.Error{Status: http.StatusUnprocessableEntity, Fault: f, Violations: violations[:min(len(violations), maxProblems)]}
}

// statusOf is the status of an error of a route.
func (rt *route) statusOf(in *boundRequest, f *fault.Error) int {
	if status := rt.byCode[f.Code]; status != 0 {
		return status
	}
	switch {
	case f.Code == fault.VersionConflict && in.matched:
		return http.StatusPreconditionFailed
	case f.Code == fault.IdempotencyKeyReused:
		return http.StatusUnprocessableEntity
	case f.Kind() == fault.KindInvalid && f.Code != fault.BadRequest && f.Code != fault.IdempotencyKeyInvalid:
		return http.StatusUnprocessableEntity
	}
	return problem.Status(f.Kind())
}

// inputViolation returns the position in the request of the input at a path of an
// operation's error; found is false if the client did not send it.
func (b *boundRequest) inputViolation(path []string) (at problem.Violation, found bool) {
	if len(path) == 0 {
		return at, false
	}
	root := b.rt.answer.fields[0]
	if arg := root.Arguments.ForName(path[0]); arg != nil {
		return b.valueViolation(arg.Value, path[1:])
	}
	if arg := root.Arguments.ForName("input"); arg != nil {
		return b.valueViolation(arg.Value, path)
	}
	return at, false
}

// valueViolation follows a path through a literal to the variable that it leads to.
func (b *boundRequest) valueViolation(v *ast.Value, path []string) (at problem.Violation, found bool) {
	for v != nil && v.Kind == ast.ObjectValue && len(path) > 0 {
		v, path = v.Children.ForName(path[0]), path[1:]
	}
	if v == nil || v.Kind != ast.Variable {
		return at, false
	}
	return b.violationAt(append([]string{v.Raw}, path...)), true
}
