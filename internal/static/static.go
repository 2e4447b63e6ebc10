// Package static serves files that are embedded in the binary to browsers: under a strict
// Content-Security-Policy, with an ETag that saves the transfer, compressed as they are embedded.
package static

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"io/fs"
	"mime"
	"net/http"
	"path"
	"strconv"
	"strings"

	"github.com/klauspost/compress/gzhttp"
)

// contentSecurityPolicy lets a page run its own scripts and call this server, and nothing
// else. Inline styles are allowed, since vendored scripts create style elements.
const contentSecurityPolicy = "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; " +
	"font-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

// Files are files by the name they are served under. It is read-only.
type Files map[string]File

// File is a file with its headers.
type File struct {
	mime    string
	etag    string
	plain   []byte // nil if only the gzipped text is embedded
	gzipped []byte // nil if only the plain text is embedded
}

// Load reads the files of a folder. One that ends in .gz is served under its name
// without it.
func Load(fsys fs.FS, folder string) (Files, error) {
	entries, err := fs.ReadDir(fsys, folder)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", folder, err)
	}
	set := make(Files, len(entries))
	for _, e := range entries {
		text, err := fs.ReadFile(fsys, path.Join(folder, e.Name()))
		if err != nil {
			return nil, fmt.Errorf("read %s: %w", folder, err)
		}
		name, isGzip := strings.CutSuffix(e.Name(), ".gz")
		f := NewFile(mime.TypeByExtension(path.Ext(name)), text)
		if isGzip {
			f.plain, f.gzipped = nil, text
		}
		set[name] = f
	}
	return set, nil
}

// NewFile returns a file of the media type.
func NewFile(mime string, text []byte) File {
	sum := sha256.Sum256(text)
	return File{mime: mime, etag: `"` + hex.EncodeToString(sum[:8]) + `"`, plain: text}
}

// Serve sends the file of the name; it reports false if there is none and nothing
// was sent.
func (s Files) Serve(w http.ResponseWriter, r *http.Request, name string) bool {
	f, ok := s[name]
	if !ok {
		return false
	}
	h := w.Header()
	h.Set("Content-Security-Policy", contentSecurityPolicy)
	h.Set("Cache-Control", "no-cache") // browsers revalidate each time; the ETag saves the transfer
	h.Set("ETag", f.etag)
	if r.Header.Get("If-None-Match") == f.etag {
		w.WriteHeader(http.StatusNotModified)
		return true
	}
	h.Set("Content-Type", f.mime)
	h.Set(gzhttp.HeaderNoCompression, "1") // large files are embedded compressed
	f.write(w, AcceptsEncoding(r, "gzip"))
	return true
}

// AcceptsEncoding reports whether the client can read a content encoding, such as gzip.
func AcceptsEncoding(r *http.Request, encoding string) bool {
	for part := range strings.SplitSeq(r.Header.Get("Accept-Encoding"), ",") {
		name, params, err := mime.ParseMediaType(strings.TrimSpace(part))
		if quality, given := params["q"]; err == nil && name == encoding {
			q, err := strconv.ParseFloat(quality, 64)
			return !given || err == nil && q > 0 && q <= 1
		}
	}
	return false
}

// write sends the file, compressed if it is embedded so and the client accepts it.
func (f File) write(w http.ResponseWriter, acceptsGzip bool) {
	switch {
	case f.gzipped == nil:
		writeSized(w, f.plain)
	case acceptsGzip:
		w.Header().Set("Content-Encoding", "gzip")
		writeSized(w, f.gzipped)
	default:
		if r, err := gzip.NewReader(bytes.NewReader(f.gzipped)); err == nil {
			_, _ = io.Copy(w, r) //nolint:gosec // our own file, of known size
		}
	}
}

func writeSized(w http.ResponseWriter, text []byte) {
	w.Header().Set("Content-Length", strconv.Itoa(len(text)))
	_, _ = w.Write(text) // fails only with the connection
}
