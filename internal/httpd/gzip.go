package httpd

import (
	"fmt"
	"net/http"

	"github.com/klauspost/compress/gzhttp"
)

// newGzip returns the middleware that compresses answers, but not streams: their events must
// not wait for one another. Clients that accept gzip and zstd alike get gzip, since some of them
// accept zstd in the name of a library and cannot read it. A compressed answer has another ETag:
// the encoding is appended to it.
func newGzip() (func(next http.Handler) http.Handler, error) {
	compress, err := gzhttp.NewWrapper(gzhttp.PreferZstd(false), gzhttp.SuffixETag("-gzip"))
	if err != nil {
		return nil, fmt.Errorf("set up compression: %w", err)
	}
	return func(next http.Handler) http.Handler {
		compressed := compress(next)
		return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if wantsWebSocket(r) || wantsEventStream(r) {
				next.ServeHTTP(w, r)
				return
			}
			compressed(w, r)
		})
	}, nil
}
