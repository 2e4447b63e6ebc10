package rest

import (
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// Deprecation announces the removal of routes.
type Deprecation struct {
	Route     string    // e.g. "GET /users/{id}", or "*" for all
	Since     time.Time // when it became deprecated, or will
	Sunset    time.Time // when it may stop working; zero if unknown
	Successor string    // URL of the replacement; /graphql if empty, which every route names without being deprecated, too
}

// setDeprecationHeaders sets the headers Deprecation (RFC 9745), Sunset (RFC 8594) and
// Link. That of a route that is not deprecated names the successor (RFC 5829) alone.
func (s *Shim) setDeprecationHeaders() error {
	var errs []error
	for _, res := range s.paths {
		for _, e := range res.methods {
			e.headers = http.Header{"Link": {e.successorLink()}}
		}
	}
	for _, d := range s.cfg.Deprecated {
		found := false
		for _, res := range s.paths {
			for _, e := range res.methods {
				if d.Route == "*" || d.Route == e.name {
					e.headers, found = d.headers(e), true
				}
			}
		}
		if !found {
			errs = append(errs, fmt.Errorf("rest: there is no route %q to deprecate", d.Route))
		}
	}
	return errors.Join(errs...)
}

func (d Deprecation) headers(e *endpoint) http.Header {
	h := http.Header{}
	h.Set("Deprecation", "@"+strconv.FormatInt(d.Since.Unix(), 10))
	if !d.Sunset.IsZero() {
		h.Set("Sunset", d.Sunset.UTC().Format(http.TimeFormat))
	}
	if d.Successor == "" {
		h.Set("Link", e.successorLink())
	} else {
		h.Set("Link", "<"+d.Successor+`>; rel="successor-version"`)
	}
	return h
}

// successorLink is the link to what takes the place of the route: GraphQL, with the operation that the
// page of the routes shows.
func (e *endpoint) successorLink() string {
	return fmt.Sprintf(`</graphql>; rel="successor-version"; title=%q`, e.operations())
}

// operations names the operations that serve an endpoint.
func (e *endpoint) operations() string {
	names := make([]string, len(e.routes))
	for i, rt := range e.routes {
		names[i] = rt.op.Name
	}
	return strings.Join(names, ", ")
}

// Operations returns the names of the GraphQL operations behind each route, such as GET /users.
func (s *Shim) Operations() map[string]string {
	all := map[string]string{}
	for _, res := range s.paths {
		for _, e := range res.methods {
			all[e.name] = e.operations()
		}
	}
	return all
}
