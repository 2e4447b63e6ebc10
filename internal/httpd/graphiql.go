package httpd

import (
	"embed"
	"net/http"
)

// graphiqlFiles are the page and what it loads; graphiql/README.md says where
// each comes from.
//
//go:embed graphiql/*.html graphiql/*.js graphiql/*.css graphiql/*.gz
var graphiqlFiles embed.FS

func (s *Server) serveGraphiQL(w http.ResponseWriter, r *http.Request) {
	s.serveFile(w, r, "index.html")
}

func (s *Server) serveAsset(w http.ResponseWriter, r *http.Request) {
	s.serveFile(w, r, r.PathValue("file"))
}

func (s *Server) serveFile(w http.ResponseWriter, r *http.Request, name string) {
	if !s.assets.Serve(w, r, name) {
		s.serveNothing(w, r)
	}
}
