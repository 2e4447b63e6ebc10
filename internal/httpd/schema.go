package httpd

import (
	"net/http"
)

const schemaPage = "GET /schema.graphql"

// serveSchema serves the schema as one text, for tools that generate code of it.
func (s *Server) serveSchema(w http.ResponseWriter, _ *http.Request) error {
	if s.deps.Schema == nil {
		return errPathNotFound()
	}
	writePlain(w, string(s.deps.Schema))
	return nil
}
