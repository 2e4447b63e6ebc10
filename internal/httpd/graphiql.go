package httpd

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"embed"
	"encoding/hex"
	"fmt"
	"io"
	"mime"
	"net/http"
	"path"
	"strconv"
	"strings"

	"github.com/klauspost/compress/gzhttp"
)

// graphiqlFiles are the page and what it loads; graphiql/README.md says where
// each comes from. Files that end in .gz are served under their name without it.
//
//go:embed graphiql/*.html graphiql/*.js graphiql/*.css graphiql/*.gz
var graphiqlFiles embed.FS

// graphiqlPolicy lets the page run its own scripts and talk to this server, and
// nothing else. Its editor writes style elements.
const graphiqlPolicy = "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; " +
	"font-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

// asset is one file of GraphiQL.
type asset struct {
	mime   string
	etag   string
	plain  []byte // nil if only compressed is kept
	packed []byte // gzip, or nil
}

// loadAssets reads the embedded files, by the name they are served under.
func loadAssets() (map[string]asset, error) {
	entries, err := graphiqlFiles.ReadDir("graphiql")
	if err != nil {
		return nil, fmt.Errorf("read GraphiQL: %w", err)
	}
	assets := make(map[string]asset, len(entries))
	for _, e := range entries {
		text, err := graphiqlFiles.ReadFile("graphiql/" + e.Name())
		if err != nil {
			return nil, fmt.Errorf("read GraphiQL: %w", err)
		}
		sum := sha256.Sum256(text)
		name, packed := strings.CutSuffix(e.Name(), ".gz")
		a := asset{mime: mime.TypeByExtension(path.Ext(name)), etag: `"` + hex.EncodeToString(sum[:8]) + `"`, plain: text}
		if packed {
			a.plain, a.packed = nil, text
		}
		assets[name] = a
	}
	return assets, nil
}

func (s *Server) serveGraphiQL(w http.ResponseWriter, r *http.Request) {
	s.serveFile(w, r, "index.html")
}

func (s *Server) serveAsset(w http.ResponseWriter, r *http.Request) {
	s.serveFile(w, r, r.PathValue("file"))
}

func (s *Server) serveFile(w http.ResponseWriter, r *http.Request, name string) {
	a, ok := s.assets[name]
	if !ok {
		s.serveNothing(w, r)
		return
	}
	h := w.Header()
	h.Set("Content-Security-Policy", graphiqlPolicy)
	h.Set("Cache-Control", "no-cache") // ask each time; the tag saves the transfer
	h.Set("ETag", a.etag)
	if r.Header.Get("If-None-Match") == a.etag {
		w.WriteHeader(http.StatusNotModified)
		return
	}
	h.Set("Content-Type", a.mime)
	h.Set(gzhttp.HeaderNoCompression, "1") // what is worth it is compressed already
	a.write(w, strings.Contains(r.Header.Get("Accept-Encoding"), "gzip"))
}

// write sends the file, compressed if it is kept so and the client can read it.
func (a asset) write(w http.ResponseWriter, gzipped bool) {
	switch {
	case a.packed == nil:
		sized(w, a.plain)
	case gzipped:
		w.Header().Set("Content-Encoding", "gzip")
		sized(w, a.packed)
	default:
		if r, err := gzip.NewReader(bytes.NewReader(a.packed)); err == nil {
			_, _ = io.Copy(w, r) //nolint:gosec // our own file, of known size
		}
	}
}

func sized(w http.ResponseWriter, text []byte) {
	w.Header().Set("Content-Length", strconv.Itoa(len(text)))
	_, _ = w.Write(text) // what fails here is the connection
}
