package requestlog

import (
	"context"
	"log/slog"
)

// notes collects what the access log says of a request beside HTTP. It belongs
// to the goroutine of the request.
type notes struct{ attrs []slog.Attr }

type notesKey struct{}

// WithNotes returns a context whose request takes notes, and what returns them.
func WithNotes(ctx context.Context) (noted context.Context, taken func() []slog.Attr) {
	n := &notes{}
	return context.WithValue(ctx, notesKey{}, n), func() []slog.Attr { return n.attrs }
}

// Note adds to what the access log says of the request; it does nothing outside
// of one. It is for the goroutine of the request.
func Note(ctx context.Context, attrs ...slog.Attr) {
	if n, ok := ctx.Value(notesKey{}).(*notes); ok {
		n.attrs = append(n.attrs, attrs...)
	}
}
