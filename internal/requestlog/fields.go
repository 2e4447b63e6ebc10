package requestlog

import (
	"context"
	"log/slog"

	"github.com/backplane-dev/backplane/internal/auth"
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

// CallerFields returns the fields that name a caller: user, and session or key; none for an anonymous one.
func CallerFields(p *auth.Principal) []slog.Attr {
	if p == nil {
		return nil
	}
	fields := []slog.Attr{slog.String("user", string(p.UserID))}
	if id := p.SessionID(); id != "" {
		fields = append(fields, slog.String("session", string(id)))
	}
	if id := p.APIKeyID(); id != "" {
		fields = append(fields, slog.String("key", string(id)))
	}
	return fields
}

// AddFields adds fields to the access log record of the request; outside of a
// request it does nothing. Only the goroutine of the request may call it.
func AddFields(ctx context.Context, attrs ...slog.Attr) {
	if f, ok := ctx.Value(fieldsKey{}).(*fields); ok {
		f.attrs = append(f.attrs, attrs...)
	}
}
