package requestlog

import (
	"context"
	"log/slog"
)

// fields collects the fields that handlers add to the access log record of a
// request. It belongs to the goroutine of the request.
type fields struct{ attrs []slog.Attr }

type fieldsKey struct{}

// CollectFields returns a context whose request collects fields, and a function
// that returns those collected.
func CollectFields(ctx context.Context) (collecting context.Context, collected func() []slog.Attr) {
	f := &fields{}
	return context.WithValue(ctx, fieldsKey{}, f), func() []slog.Attr { return f.attrs }
}

// AddFields adds fields to the access log record of the request; outside of a
// request it does nothing. Only the goroutine of the request may call it.
func AddFields(ctx context.Context, attrs ...slog.Attr) {
	if f, ok := ctx.Value(fieldsKey{}).(*fields); ok {
		f.attrs = append(f.attrs, attrs...)
	}
}
