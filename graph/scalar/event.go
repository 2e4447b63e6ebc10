package scalar

import (
	"context"
	"encoding/json"
	"io"
	"strings"

	"github.com/99designs/gqlgen/graphql"

	"github.com/backplane-dev/backplane/internal/cursor"
	"github.com/backplane-dev/backplane/internal/event"
	"github.com/backplane-dev/backplane/internal/fault"
	"github.com/backplane-dev/backplane/internal/security"
)

// MarshalCursor writes a Cursor as opaque text.
func MarshalCursor(c event.Cursor) graphql.ContextMarshaler {
	return graphql.ContextWriterFunc(func(ctx context.Context, w io.Writer) error {
		graphql.MarshalString(cursor.Encode(ctx, c)).MarshalGQL(w)
		return nil
	})
}

// UnmarshalCursor reads a Cursor of the caller, see cursor.Decode; text that is none is CURSOR_INVALID.
func UnmarshalCursor(ctx context.Context, v any) (event.Cursor, error) {
	s, err := UnmarshalString(v)
	if err != nil {
		return event.Cursor{}, err
	}
	return cursor.Decode(ctx, s)
}

// CheckCursor reports why a value has not the form of a Cursor.
func CheckCursor(v any) error {
	s, err := UnmarshalString(v)
	if err != nil {
		return err
	}
	return cursor.Check(s)
}

// MarshalJSON writes a JSON value as it is.
func MarshalJSON(v json.RawMessage) graphql.Marshaler {
	return graphql.WriterFunc(func(w io.Writer) {
		if len(v) == 0 {
			v = json.RawMessage("null")
		}
		_, _ = w.Write(v)
	})
}

// UnmarshalJSON reads a JSON value.
func UnmarshalJSON(v any) (json.RawMessage, error) {
	b, err := json.Marshal(v)
	if err != nil {
		return nil, badInput("a value that JSON can hold")
	}
	return b, nil
}

// MarshalEventType writes an EventType: order.placed as ORDER_PLACED.
func MarshalEventType(t event.Type) graphql.Marshaler { return graphql.MarshalString(enumName(t)) }

// UnmarshalEventType reads an EventType.
func UnmarshalEventType(v any) (event.Type, error) {
	s, _ := v.(string)
	for _, t := range event.Types() {
		if enumName(t) == s {
			return t, nil
		}
	}
	return "", fault.New(fault.BadInput, "This must be a value of EventType.")
}

// MarshalSecurityEventType writes a SecurityEventType: sign_in.failed as SIGN_IN_FAILED.
func MarshalSecurityEventType(t security.EventType) graphql.Marshaler {
	return graphql.MarshalString(enumName(t))
}

// UnmarshalSecurityEventType reads a SecurityEventType.
func UnmarshalSecurityEventType(v any) (security.EventType, error) {
	s, _ := v.(string)
	for _, t := range security.EventTypes() {
		if enumName(t) == s {
			return t, nil
		}
	}
	return "", fault.New(fault.BadInput, "This must be a value of SecurityEventType.")
}

func enumName[T ~string](t T) string {
	return strings.ToUpper(strings.ReplaceAll(string(t), ".", "_"))
}
