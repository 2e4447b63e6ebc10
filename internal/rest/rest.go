// Package rest owns the routes of the old world: each is a stored GraphQL operation
// that says in a directive which requests it serves and how its answer is shown.
//
// At start the operations are held against the schema and prepared; a call binds
// the request to variables and runs through the same executor as GraphQL, with its
// limits, loaders, permissions and idempotency keys. No route has code of its own.
// The OpenAPI document and the page that shows it come from the same operations.
// Who is calling, how large a body may be and how much runs at once is the business
// of the server that mounts the routes.
package rest

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"strings"

	"github.com/vektah/gqlparser/v2/ast"

	"github.com/backplane-dev/backplane/internal/auth"
	"github.com/backplane-dev/backplane/internal/executor"
	"github.com/backplane-dev/backplane/internal/fault"
	"github.com/backplane-dev/backplane/internal/problem"
	"github.com/backplane-dev/backplane/internal/requestlog"
)

// Config tunes a Shim. The zero value is ready to use.
type Config struct {
	Folder     string                                  // of an operator's own operations; none if empty
	Reserved   []string                                // patterns of net/http that are not for operations
	Deprecated []Deprecation                           // routes that are to go
	Used       func(ctx context.Context, route string) // hears of each call of a route; may be nil
}

// Shim serves stored operations. Its methods are safe for concurrent use.
type Shim struct {
	cfg    Config
	exec   *executor.Executor
	log    *slog.Logger
	routes []*route
	paths  map[string]*resource // by pattern
	pages  *pages
}

// resource is what is at a path.
type resource struct {
	path    string
	methods map[string]*endpoint
	allow   string
}

// endpoint is a method of a resource: the operations that serve it.
type endpoint struct {
	name    string // e.g. GET /users/{id}
	routes  []*route
	headers http.Header // of every answer
}

// New returns a Shim of the operations of the binary and of the operator. It
// returns an error that lists every mistake in them, with file and line.
func New(exec *executor.Executor, cfg Config, log *slog.Logger) (*Shim, error) {
	if exec == nil || log == nil {
		return nil, errors.New("rest: executor and log are required")
	}
	schema, err := withDirectives(exec.Schema())
	if err != nil {
		return nil, err
	}
	sources, err := readAll(cfg.Folder)
	if err != nil {
		return nil, err
	}
	all, err := parseAll(schema, sources)
	if err != nil {
		return nil, err
	}
	routes, err := compileAll(exec, all)
	if err != nil {
		return nil, err
	}
	s := &Shim{cfg: cfg, exec: exec, log: log, routes: routes, paths: map[string]*resource{}}
	if err := s.mount(); err != nil {
		return nil, err
	}
	s.pages, err = newPages(s.describe(), log)
	return s, err
}

// mount groups the routes by path and method.
func (s *Shim) mount() error {
	byPath := map[string]*resource{}
	for _, rt := range s.routes {
		res := byPath[rt.path]
		if res == nil {
			res = &resource{path: rt.path, methods: map[string]*endpoint{}}
			byPath[rt.path] = res
		}
		e := res.methods[rt.method]
		if e == nil {
			e = &endpoint{name: rt.method + " " + rt.path}
			res.methods[rt.method] = e
		}
		e.routes = append(e.routes, rt)
	}
	for _, rt := range s.routes {
		rt.shows = byPath[rt.path].showing(rt)
	}
	for path, res := range byPath {
		res.allow = allowed(res)
		s.paths[path] = res
		s.paths[path+"/{$}"] = res
	}
	if err := s.checkPaths(); err != nil {
		return err
	}
	return s.deprecate()
}

// checkPaths finds paths that no mux can tell apart, or that the server keeps.
func (s *Shim) checkPaths() error {
	var errs []error
	mux := http.NewServeMux()
	for _, pattern := range s.cfg.Reserved {
		mux.Handle(pattern, http.NotFoundHandler())
	}
	seen := map[string]bool{}
	for _, rt := range s.routes {
		if seen[rt.path] {
			continue
		}
		seen[rt.path] = true
		if err := register(mux, rt.path); err != nil {
			errs = append(errs, rt.mistake(rt.op.Position, "the path %s cannot be served beside others: %v", rt.path, err))
		}
	}
	return errors.Join(errs...)
}

// register turns the panic of a mux into an error.
func register(mux *http.ServeMux, path string) (err error) {
	defer func() {
		if cause := recover(); cause != nil {
			err = fmt.Errorf("%v", cause)
		}
	}()
	mux.Handle(path, http.NotFoundHandler())
	mux.Handle(path+"/{$}", http.NotFoundHandler())
	return nil
}

func allowed(res *resource) string {
	methods := []string{http.MethodOptions}
	for m := range res.methods {
		methods = append(methods, m)
		if m == http.MethodGet {
			methods = append(methods, http.MethodHead)
		}
	}
	slices.Sort(methods)
	return strings.Join(methods, ", ")
}

// Patterns returns the patterns of net/http that requests of routes match.
func (s *Shim) Patterns() []string {
	patterns := make([]string, 0, len(s.paths))
	for p := range s.paths {
		patterns = append(patterns, p)
	}
	slices.Sort(patterns)
	return patterns
}

// ServeHTTP answers a request that matches one of the patterns. The context says
// who is calling; the body is bounded.
func (s *Shim) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	res := s.paths[r.Pattern]
	if r.Method == http.MethodOptions {
		s.serveOptions(w, res)
		return
	}
	e, err := res.endpoint(r.Method)
	if err != nil {
		problem.Write(w, r, s.log, err)
		return
	}
	for name, values := range e.headers {
		w.Header()[name] = slices.Clone(values)
	}
	if s.cfg.Used != nil {
		s.cfg.Used(r.Context(), e.name)
	}
	rt, err := e.pick(r, ast.Query, ast.Mutation)
	if err == nil {
		err = acceptable(r)
	}
	if err == nil {
		err = s.answer(w, r, rt)
	}
	if err != nil {
		problem.Write(w, r, s.log, err)
	}
}

func (s *Shim) serveOptions(w http.ResponseWriter, res *resource) {
	w.Header().Set("Allow", res.allow)
	if res.methods[http.MethodPatch] != nil {
		w.Header().Set("Accept-Patch", mediaMergePatch+", "+mediaJSON)
	}
	w.WriteHeader(http.StatusNoContent)
}

func (res *resource) endpoint(method string) (*endpoint, error) {
	if method == http.MethodHead {
		method = http.MethodGet
	}
	if e := res.methods[method]; e != nil {
		return e, nil
	}
	return nil, &problem.Error{Status: http.StatusMethodNotAllowed, Allow: res.allow,
		Fault: fault.New(fault.Invalid, fault.BadRequest, "This path is served by %s.", res.allow)}
}

// pick returns the operation of one of the kinds that serves the caller.
func (e *endpoint) pick(r *http.Request, kinds ...ast.Operation) (*route, error) {
	who := anonymous
	if auth.From(r.Context()) != nil {
		who = signedIn
	}
	others := 0
	for _, rt := range e.routes {
		if !slices.Contains(kinds, rt.op.Operation) {
			continue
		}
		if rt.when == anybody || rt.when == who {
			return rt, nil
		}
		others++
	}
	switch {
	case others == 0:
		return nil, errNotAcceptable()
	case who == anonymous:
		return nil, fault.New(fault.Unauthenticated, fault.Unauthorized, "Sign in first.")
	}
	return nil, fault.New(fault.Forbidden, fault.AccessDenied, "This is for strangers; leave the credential out.")
}

// prepare returns the operation of a request, or all that is wrong with that.
func (s *Shim) prepare(ctx context.Context, rt *route, in *bound) (*executor.Operation, error) {
	op, refusal := s.exec.Prepare(ctx, executor.Request{Query: rt.query, Variables: in.variables, Called: in.called})
	switch {
	case refusal != nil:
		return nil, rt.refused(in, refusal)
	case len(in.problems) > 0:
		return nil, unprocessable(in.problems)
	}
	requestlog.Note(ctx, slog.String("operation", string(op.Kind())), slog.String("name", op.Name()), slog.Int("cost", op.Cost()))
	return op, nil
}

// find returns the id of the object that had the given one in the system before;
// the given one if there is no such object, so that it is found absent as any other.
func (s *Shim) find(ctx context.Context, l *lookup, id string) (string, error) {
	op, refusal := s.exec.Prepare(ctx, executor.Request{Query: l.query, Variables: map[string]any{l.variable: id}})
	if refusal != nil {
		return id, nil // it is not even text that can be looked up
	}
	resp := s.exec.Run(ctx, op)
	if len(resp.Errors) > 0 {
		return "", cmp.Or[error](resp.Errors[0].Err, resp.Errors[0])
	}
	found := findAll(resp.Data, l.way)
	if len(found) < 2 || found[0] != '"' {
		return id, nil
	}
	return string(found[1 : len(found)-1]), nil
}
