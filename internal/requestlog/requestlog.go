// Package requestlog carries the request id and the log fields of a request in its
// context: the id is added to every log record made under the context, the fields
// to the access log record. It does no tracing.
package requestlog

import (
	"context"
	"crypto/rand"
	"log/slog"
)

type requestIDKey struct{}

// maxRequestID is the maximum length of an id that a client sends.
const maxRequestID = 64

// WithRequestID returns a context that carries the request id.
func WithRequestID(ctx context.Context, id string) context.Context {
	return context.WithValue(ctx, requestIDKey{}, id)
}

// RequestID returns the request id in ctx, empty if there is none.
func RequestID(ctx context.Context) string {
	id, _ := ctx.Value(requestIDKey{}).(string)
	return id
}

// NewRequestID returns a fresh random id of 26 characters.
func NewRequestID() string { return rand.Text() }

// ValidRequestID reports whether an id that a client sends is used: 1 to
// 64 letters, digits and any of ".-_:/+=", so that it is harmless in logs.
func ValidRequestID(id string) bool {
	if len(id) == 0 || len(id) > maxRequestID {
		return false
	}
	for i := range len(id) {
		if !idByte(id[i]) {
			return false
		}
	}
	return true
}

func idByte(c byte) bool {
	switch {
	case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9':
		return true
	case c == '.', c == '-', c == '_', c == ':', c == '/', c == '+', c == '=':
		return true
	}
	return false
}

// Handler returns a handler that adds the request's id, as request_id, to every
// record logged under its context.
func Handler(next slog.Handler) slog.Handler { return handler{next} }

type handler struct{ slog.Handler }

func (h handler) Handle(ctx context.Context, r slog.Record) error {
	if id := RequestID(ctx); id != "" {
		r = r.Clone()
		r.AddAttrs(slog.String("request_id", id))
	}
	return h.Handler.Handle(ctx, r)
}

func (h handler) WithAttrs(attrs []slog.Attr) slog.Handler {
	return handler{h.Handler.WithAttrs(attrs)}
}

func (h handler) WithGroup(name string) slog.Handler { return handler{h.Handler.WithGroup(name)} }
