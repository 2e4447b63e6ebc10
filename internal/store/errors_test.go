package store

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"net"
	"sync/atomic"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/backplane-dev/backplane/internal/fault"
	"github.com/backplane-dev/backplane/internal/user"
)

func TestTranslate(t *testing.T) {
	t.Parallel()
	pg := func(code, constraint string) error {
		return fmt.Errorf("query: %w", &pgconn.PgError{Severity: "ERROR", Code: code, ConstraintName: constraint})
	}
	for _, tt := range []struct {
		name string
		err  error
		kind fault.Kind
		code fault.Code
	}{
		{"a name that is taken is a conflict", pg("23505", "users_email_key_key"), fault.KindConflict, user.CodeEmailTaken},
		{"another unique index is our mistake", pg("23505", "events_id_key"), fault.KindInternal, fault.Internal},
		{"a check is our mistake", pg("23514", "stocks_quantity_not_negative"), fault.KindInternal, fault.Internal},
		{"a lock that took too long", pg("55P03", ""), fault.KindUnavailable, fault.Unavailable},
		{"a deadlock after the last try", pg("40P01", ""), fault.KindUnavailable, fault.Unavailable},
		{"a statement that took too long", pg("57014", ""), fault.KindTimeout, fault.Timeout},
		{"too many connections", pg("53300", ""), fault.KindUnavailable, fault.Unavailable},
		{"a full disk", pg("53100", ""), fault.KindUnavailable, fault.Unavailable},
		{"a server that shuts down", pg("57P01", ""), fault.KindUnavailable, fault.Unavailable},
		{"a standby that only reads", pg("25006", ""), fault.KindUnavailable, fault.Unavailable},
		{"a wrong password", pg("28P01", ""), fault.KindUnavailable, fault.Unavailable},
		{"a NUL in a text", pg("22021", ""), fault.KindInvalid, fault.BadInput},
		{"a connection refused", &net.OpError{Op: "dial", Err: errors.New("refused")}, fault.KindUnavailable, fault.Unavailable},
		{"a connection lost", io.ErrUnexpectedEOF, fault.KindUnavailable, fault.Unavailable},
		{"a connection that is bad", driver.ErrBadConn, fault.KindUnavailable, fault.Unavailable},
		{"what a domain says stays", inFlight, fault.KindConflict, fault.IdempotencyInFlight},
		{"anything else is internal", errors.New("who knows"), fault.KindInternal, fault.Internal},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			got := fault.From((&DB{closed: new(atomic.Bool)}).translateError(t.Context(), tt.err))
			if got.Kind() != tt.kind || got.Code != tt.code {
				t.Errorf("translate(%v) = %v of kind %d, want %s of kind %d", tt.err, got.Code, got.Kind(), tt.code, tt.kind)
			}
		})
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if got := fault.From((&DB{closed: new(atomic.Bool)}).translateError(ctx, pg("57014", ""))); got.Code != fault.Cancelled {
		t.Errorf("an error after the caller went away = %v, want CANCELLED", got)
	}
}
