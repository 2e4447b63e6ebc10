package rest

import "net/http"

// Pages returns the patterns of what describes the routes.
func (s *Shim) Pages() []string { return nil }

// ServePage answers a request that matches one of Pages.
func (s *Shim) ServePage(w http.ResponseWriter, r *http.Request) { http.NotFound(w, r) }
