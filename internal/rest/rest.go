// Package rest serves the legacy REST routes. Each route is a stored GraphQL operation
// (operations/*.graphql) whose directive states method, path and the shape of its result.
//
// At start the operations are validated against the schema and prepared. A call binds
// the request to variables (bind.go), runs the operation on the same executor as GraphQL,
// with its limits, loaders, permissions and idempotency keys (merge.go), reads the
// result or problem document (result.go) and sends it (respond.go). No route has code of
// its own. The OpenAPI document and its page come from the same operations.
//
// Authentication, body size and concurrency limits are those of the server that mounts
// the routes.
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
	"github.com/backplane-dev/backplane/internal/page"
	"github.com/backplane-dev/backplane/internal/problem"
	"github.com/backplane-dev/backplane/internal/requestlog"
	"github.com/backplane-dev/backplane/internal/uid"
)

// Config tunes a Shim. The zero value is ready to use.
type Config struct {
	Version    string        // of the product, for the OpenAPI document
	Folder     string        // holds the operator's own operations; none if empty
	Reserved   []string      // patterns of net/http that operations must not use
	Deprecated []Deprecation // routes that will be removed
	PageSize   int           // objects in a list if the client does not say how many; default page.DefaultSize

	// IgnoreUnknown passes over parameters of the query that a route does not know, instead of refusing the request.
	IgnoreUnknown bool
	OnIgnored     func(ctx context.Context, route, parameter string) // called for each; the name is the client's, at most 100 bytes and "…"; may be nil
	OnUnknown     func(ctx context.Context, method, path string)     // called for each call of a path by a method that it has not; may be nil
	OnCall        func(ctx context.Context, route string)            // called for each call of a route; may be nil
	OnError       func(ctx context.Context, err error)               // called with errors that the executor does not report; may be nil

	// IsKeyUsed reports whether a call of the user under the idempotency key has taken effect. May be nil.
	IsKeyUsed func(ctx context.Context, by uid.User, key string) (bool, error)
}

// Shim serves stored operations. Its methods are safe for concurrent use.
type Shim struct {
	cfg    Config
	exec   *executor.Executor
	log    *slog.Logger
	routes []*route
	paths  map[string]*resource // by pattern
	pages  *docPages
}

// resource is a path with its methods.
type resource struct {
	path    string
	methods map[string]*endpoint
	allow   string
}

// endpoint is a method of a resource, with the operations that serve it.
type endpoint struct {
	name    string // e.g. GET /users/{id}
	routes  []*route
	headers http.Header // of every response
}

// New returns a Shim of the operations of the binary and of the operator, or an error
// that lists every mistake in them, with file and line.
func New(exec *executor.Executor, cfg Config, log *slog.Logger) (*Shim, error) {
	if exec == nil || log == nil {
		return nil, errors.New("rest: executor and log are required")
	}
	if cfg.PageSize = cmp.Or(cfg.PageSize, page.DefaultSize); cfg.PageSize < 1 || cfg.PageSize > page.MaxSize {
		return nil, fmt.Errorf("rest config: a page size of %d is not from 1 to %d", cfg.PageSize, page.MaxSize)
	}
	schema, err := withDirectives(exec.Schema())
	if err != nil {
		return nil, err
	}
	sources, err := readSources(cfg.Folder)
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
	if err := s.mountRoutes(); err != nil {
		return nil, err
	}
	s.pages, err = newDocPages(s.openAPIDocument(), log)
	return s, err
}

// mountRoutes groups the routes by path and method.
func (s *Shim) mountRoutes() error {
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
		res := byPath[rt.path]
		rt.reads, rt.replaces = res.siblingRoute(rt, http.MethodGet), res.siblingRoute(rt, http.MethodPut)
		rt.parameters = res.methods[rt.method].parameters()
	}
	for path, res := range byPath {
		res.allow = allowHeader(res)
		s.paths[path] = res
		s.paths[path+"/{$}"] = res
	}
	if err := s.checkPaths(); err != nil {
		return err
	}
	return s.setDeprecationHeaders()
}

// parameters returns the names of the query parameters that the routes read.
func (e *endpoint) parameters() (names []string) {
	for _, rt := range e.routes {
		for _, p := range rt.params {
			names = append(names, p.from.Query...)
			for _, name := range []string{p.from.Offset, p.from.Page} {
				if name != "" {
					names = append(names, name)
				}
			}
		}
	}
	return names
}

// checkPaths returns an error for paths that conflict for http.ServeMux, or that are
// reserved.
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
		if err := tryRegister(mux, rt.path); err != nil {
			errs = append(errs, rt.errorAt(rt.op.Position, "the path %s conflicts with others: %v", rt.path, err))
		}
	}
	return errors.Join(errs...)
}

// tryRegister turns the panic of a mux into an error.
func tryRegister(mux *http.ServeMux, path string) (err error) {
	defer func() {
		if cause := recover(); cause != nil {
			err = fmt.Errorf("%v", cause)
		}
	}()
	mux.Handle(path, http.NotFoundHandler())
	mux.Handle(path+"/{$}", http.NotFoundHandler())
	return nil
}

func allowHeader(res *resource) string {
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

// ServeHTTP serves a request that matches one of the patterns. The context carries the
// caller; the server bounds the body.
func (s *Shim) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	res := s.paths[r.Pattern]
	if r.Method == http.MethodOptions {
		s.serveOptions(w, res)
		return
	}
	e, err := res.endpointFor(r.Method)
	if err != nil {
		if s.cfg.OnUnknown != nil {
			s.cfg.OnUnknown(r.Context(), r.Method, res.path)
		}
		problem.Write(w, r, s.log, err)
		return
	}
	for name, values := range e.headers {
		w.Header()[name] = slices.Clone(values)
	}
	if s.cfg.OnCall != nil {
		s.cfg.OnCall(r.Context(), e.name)
	}
	rt, err := e.selectRoute(r, ast.Query, ast.Mutation)
	if err == nil {
		err = cmp.Or(checkAccept(r), rt.checkScopes(auth.From(r.Context())))
	}
	if err == nil {
		err = s.serveOperation(w, r, rt)
	} else {
		s.reportError(r.Context(), err)
	}
	if err != nil {
		problem.Write(w, r, s.log, err)
	}
}

// reportIgnored reports a parameter that was passed over.
func (s *Shim) reportIgnored(ctx context.Context, rt *route, parameter string) {
	if s.cfg.OnIgnored != nil {
		s.cfg.OnIgnored(ctx, rt.method+" "+rt.path, parameter)
	}
}

func (s *Shim) reportError(ctx context.Context, err error) {
	if s.cfg.OnError != nil {
		s.cfg.OnError(ctx, err)
	}
}

// checkScopes refuses a mutation to an API key that may not read the answer: a client could not
// tell a refusal that comes after the change from one that comes before it.
func (rt *route) checkScopes(caller *auth.Principal) error {
	if caller == nil {
		return nil
	}
	for _, s := range rt.scopes {
		if !caller.May(s) {
			return fault.New(fault.Forbidden, "This API key lacks the scope %s, which the answer needs; nothing was done.", s)
		}
	}
	return nil
}

func (s *Shim) serveOptions(w http.ResponseWriter, res *resource) {
	w.Header().Set("Allow", res.allow)
	if res.methods[http.MethodPatch] != nil {
		w.Header().Set("Accept-Patch", mediaMergePatch+", "+mediaJSON)
	}
	w.WriteHeader(http.StatusNoContent)
}

func (res *resource) endpointFor(method string) (*endpoint, error) {
	if method == http.MethodHead {
		method = http.MethodGet
	}
	if e := res.methods[method]; e != nil {
		return e, nil
	}
	return nil, &problem.Error{Status: http.StatusMethodNotAllowed, Allow: res.allow,
		Fault: fault.New(fault.BadRequest, "This path is served by %s.", res.allow)}
}

// selectRoute returns the route of one of the kinds of operation that serves the caller.
func (e *endpoint) selectRoute(r *http.Request, kinds ...ast.Operation) (*route, error) {
	caller := anonymous
	if auth.From(r.Context()) != nil {
		caller = signedIn
	}
	others := 0
	var found *route
	for _, rt := range e.routes {
		switch {
		case !slices.Contains(kinds, rt.op.Operation):
		case found == nil && (rt.when == anyCaller || rt.when == caller):
			found = rt
		default:
			others++
		}
	}
	if found != nil && (others == 0 || auth.Refused(r.Context()) == nil) {
		return found, nil // else a caller whose credential was refused may have meant another
	}
	switch {
	case others == 0:
		return nil, errNotAcceptable()
	case caller == anonymous:
		return nil, auth.NotSignedIn(r.Context())
	}
	return nil, fault.New(fault.Forbidden, "This is for anonymous callers; leave the credential out.")
}

// prepareOperation returns the operation of a request, or a problem that lists every
// mistake in the request.
func (s *Shim) prepareOperation(ctx context.Context, rt *route, in *boundRequest) (*executor.Operation, error) {
	op, refusal := s.exec.Prepare(ctx, executor.Request{Query: rt.query, Variables: in.variables, StrictLists: true, DescribePath: in.describePath})
	switch {
	case refusal != nil:
		return nil, rt.problemOfRefusal(in, refusal)
	case len(in.problems) > 0:
		return nil, unprocessable(in.problems)
	}
	requestlog.AddFields(ctx, slog.String("operation", string(op.Kind())), slog.String("name", op.Name()), slog.Int("cost", op.Cost()))
	return op, nil
}

// findByLegacyID returns the id of the object with the given legacy id; the given id if
// there is none, so that the operation answers as for any absent object.
func (s *Shim) findByLegacyID(ctx context.Context, l *lookup, id string) (string, error) {
	op, refusal := s.exec.Prepare(ctx, executor.Request{Query: l.query, Variables: map[string]any{l.variable: id}})
	if refusal != nil {
		return id, nil // not text that can be looked up
	}
	resp, err := s.exec.Run(ctx, op)
	if err != nil {
		return "", err
	}
	if len(resp.Errors) > 0 {
		return "", cmp.Or[error](resp.Errors[0].Err, resp.Errors[0])
	}
	found := findPath(resp.Data, l.path)
	if len(found) < 2 || found[0] != '"' {
		return id, nil
	}
	return string(found[1 : len(found)-1]), nil
}
