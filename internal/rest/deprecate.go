package rest

import (
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"time"
)

// Deprecation announces the removal of routes.
type Deprecation struct {
	Route     string    // e.g. "GET /users/{id}", or "*" for all
	Since     time.Time // when it became deprecated, or will
	Sunset    time.Time // when it may stop working; zero if unknown
	Successor string    // URL of the replacement; /graphql if empty
}

// setDeprecationHeaders sets the headers Deprecation (RFC 9745), Sunset (RFC 8594) and
// Link.
func (s *Shim) setDeprecationHeaders() error {
	var errs []error
	for _, d := range s.cfg.Deprecated {
		found := false
		for _, res := range s.paths {
			for _, e := range res.methods {
				if d.Route == "*" || d.Route == e.name {
					e.headers, found = d.headers(), true
				}
			}
		}
		if !found {
			errs = append(errs, fmt.Errorf("rest: there is no route %q to deprecate", d.Route))
		}
	}
	return errors.Join(errs...)
}

func (d Deprecation) headers() http.Header {
	h := http.Header{}
	h.Set("Deprecation", "@"+strconv.FormatInt(d.Since.Unix(), 10))
	if !d.Sunset.IsZero() {
		h.Set("Sunset", d.Sunset.UTC().Format(http.TimeFormat))
	}
	successor := d.Successor
	if successor == "" {
		successor = "/graphql"
	}
	h.Set("Link", "<"+successor+`>; rel="successor-version"`)
	return h
}
