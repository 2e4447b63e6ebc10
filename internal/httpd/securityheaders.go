package httpd

import "net/http"

// apiPolicy is the Content-Security-Policy of API answers: a browser that displays one may do
// nothing with it.
const apiPolicy = "default-src 'none'; frame-ancestors 'none'"

// setSecurityHeaders forbids browsers to sniff, frame and run answers. Handlers of pages set a
// policy of their own.
func (s *Server) setSecurityHeaders(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Content-Security-Policy", apiPolicy)
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("X-Frame-Options", "DENY")
		h.Set("Referrer-Policy", "no-referrer")
		next.ServeHTTP(w, r)
	})
}
