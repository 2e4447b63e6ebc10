package rest

import (
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"time"
)

// Deprecation says that routes are to go.
type Deprecation struct {
	Route     string    // e.g. "GET /users/{id}", or "*" for all
	Since     time.Time // when it became deprecated, or will
	Sunset    time.Time // when it may stop to work; zero if that is open
	Successor string    // URL of what takes its place; /graphql if empty
}

// deprecate adds the headers that tell clients of it (RFC 9745, RFC 8594).
func (s *Shim) deprecate() error {
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
