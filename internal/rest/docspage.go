package rest

import (
	"embed"
	"encoding/json"
	"fmt"
	"log/slog"
	"net/http"

	"github.com/backplane-dev/backplane/internal/fault"
	"github.com/backplane-dev/backplane/internal/problem"
	"github.com/backplane-dev/backplane/internal/static"
)

// docs is the page that renders the OpenAPI document; docs/README.md says where its files
// come from.
//
//go:embed docs/*.html docs/*.js docs/*.svg docs/*.gz
var docs embed.FS

// docPages serves the documentation of the routes, equal for all callers.
type docPages struct {
	files static.Files
	log   *slog.Logger
}

const (
	specName = "openapi.json"
	pageName = "index.html"
)

func newDocPages(spec map[string]any, log *slog.Logger) (*docPages, error) {
	files, err := static.Load(docs, "docs")
	if err != nil {
		return nil, err
	}
	text, err := json.MarshalIndent(spec, "", " ")
	if err != nil {
		return nil, fmt.Errorf("write the OpenAPI document: %w", err)
	}
	files[specName] = static.NewFile(mediaJSON, append(text, '\n'))
	return &docPages{files, log}, nil
}

// Pages returns the patterns of the documentation.
func (s *Shim) Pages() []string {
	return []string{"GET /" + specName, "GET /docs", "GET /docs/{$}", "GET /docs/{file}"}
}

// ServePage serves a request that matches one of Pages.
func (s *Shim) ServePage(w http.ResponseWriter, r *http.Request) { s.pages.ServeHTTP(w, r) }

// ServeHTTP implements http.Handler.
func (p *docPages) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	name := r.PathValue("file")
	switch {
	case r.URL.Path == "/docs/": // from where the page's relative references would not do
		w.Header().Set("Location", "../docs")
		w.WriteHeader(http.StatusPermanentRedirect)
		return
	case r.URL.Path == "/"+specName:
		name = specName
	case name == "":
		name = pageName
	}
	if !p.files.Serve(w, r, name) {
		problem.Write(w, r, p.log, fault.New(fault.NotFound, "There is nothing at this path."))
	}
}
