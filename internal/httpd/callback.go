package httpd

import (
	"bytes"
	"net/http"

	"github.com/backplane-dev/backplane/internal/membudget"
)

// CallbackPath is where payment providers send the outcomes that come later than their answers.
const CallbackPath = "/callbacks/payments"

// maxCallbackBody bounds the body of a callback, in bytes.
const maxCallbackBody = 64 << 10

// serveCallback hands a callback over, with the headers that its signature is in. The signature is its
// only credential. It answers when the message is stored, and the same when it was stored before.
func (s *Server) serveCallback(w http.ResponseWriter, r *http.Request) error {
	if s.deps.Callback == nil {
		return errPathNotFound()
	}
	if r.Method != http.MethodPost {
		return errMethodNotAllowed("Callbacks are sent by POST.", "POST")
	}
	ctx, grant := s.openMemory(r.Context())
	defer grant.Release()
	var body bytes.Buffer
	paid := grant.Reader(ctx, http.MaxBytesReader(w, r.Body, maxCallbackBody), membudget.JSONFactor)
	if err := s.copyBody(&body, paid, w, r); err != nil {
		return err
	}
	if err := s.inSlot(ctx, w, func(http.ResponseWriter) error { return s.deps.Callback(ctx, r.Header, body.Bytes()) }); err != nil {
		return err
	}
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(http.StatusNoContent)
	return nil
}
