package httpd

import (
	"embed"
	"net/http"
	"strings"
)

// graphiqlFiles are the page and the files that it loads; graphiql/README.md lists where each
// comes from.
//
//go:embed graphiql/*.html graphiql/*.js graphiql/*.css graphiql/*.svg graphiql/*.gz
var graphiqlFiles embed.FS

// The patterns of GraphiQL.
const (
	graphiqlPage = "GET /{$}"
	graphiqlFile = "GET /graphiql/{file}"
)

// isForPage reports whether a person has opened /graphql in a browser: a GET without an operation that asks for HTML.
func (s *Server) isForPage(r *http.Request) bool {
	return r.Method == http.MethodGet && r.URL.RawQuery == "" && !s.cfg.HideDocs && strings.Contains(r.Header.Get("Accept"), "text/html")
}

func (s *Server) serveGraphiQL(w http.ResponseWriter, r *http.Request) error {
	return s.serveStatic(w, r, "index.html")
}

func (s *Server) serveGraphiQLFile(w http.ResponseWriter, r *http.Request) error {
	return s.serveStatic(w, r, r.PathValue("file"))
}

func (s *Server) serveStatic(w http.ResponseWriter, r *http.Request, name string) error {
	if !s.graphiql.Serve(w, r, name) {
		return errPathNotFound()
	}
	return nil
}
