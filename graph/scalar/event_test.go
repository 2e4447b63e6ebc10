package scalar

import (
	"bytes"
	"encoding/json"
	"testing"

	"github.com/99designs/gqlgen/graphql"

	"github.com/backplane-dev/backplane/internal/cursor"
	"github.com/backplane-dev/backplane/internal/event"
	"github.com/backplane-dev/backplane/internal/fault"
)

func written(m graphql.Marshaler) string {
	var b bytes.Buffer
	m.MarshalGQL(&b)
	return b.String()
}

func TestCursor_travels_as_opaque_text(t *testing.T) {
	t.Parallel()
	codec, foreign := cursor.NewCodec([32]byte{1}), cursor.NewCodec([32]byte{2}) // whose cursor decrypts to no timeline
	ctx := cursor.With(t.Context(), codec)
	c := event.Cursor{Timeline: "0a1b2c3d4e5f", Position: 17}
	text := codec.Encode(c)
	if got := written(graphql.WrapContextMarshaler(ctx, MarshalCursor(c))); got != `"`+text+`"` {
		t.Errorf("a cursor is written %s, want %s", got, text)
	}
	if got, err := UnmarshalCursor(ctx, text); err != nil || got != c {
		t.Errorf("UnmarshalCursor = %v, %v, want %v", got, err, c)
	}
	for v, want := range map[any]fault.Code{
		"x": fault.CursorInvalid, "x.-1": fault.CursorInvalid, 17: fault.BadInput, "\x00": fault.BadInput, text + "A": fault.CursorInvalid,
		"0a1b2c3d4e5f.17": fault.CursorUnknown, foreign.Encode(c): fault.CursorUnknown,
	} {
		if _, err := UnmarshalCursor(ctx, v); !fault.Is(err, want) {
			t.Errorf("UnmarshalCursor(%#v) = %v, want %s", v, err, want)
		}
		if err := CheckCursor(v); (err != nil) != (want != fault.CursorUnknown) {
			t.Errorf("CheckCursor(%#v) = %v, want the mistakes of form", v, err)
		}
	}
}

func TestJSON_travels_as_it_is(t *testing.T) {
	t.Parallel()
	for raw, want := range map[string]string{`{"total":12.90}`: `{"total":12.90}`, "": "null"} {
		if got := written(MarshalJSON(json.RawMessage(raw))); got != want {
			t.Errorf("%q is written %s, want %s", raw, got, want)
		}
	}
	got, err := UnmarshalJSON(map[string]any{"n": json.Number("12345678901234567890")})
	if err != nil || string(got) != `{"n":12345678901234567890}` {
		t.Errorf("UnmarshalJSON = %s, %v", got, err)
	}
	if _, err := UnmarshalJSON(func() {}); !fault.Is(err, fault.BadInput) {
		t.Errorf("UnmarshalJSON of a function = %v, want BAD_INPUT", err)
	}
}

func TestEventType_is_spelled_as_an_enum(t *testing.T) {
	t.Parallel()
	for _, typ := range event.Types() {
		var name string
		if err := json.Unmarshal([]byte(written(MarshalEventType(typ))), &name); err != nil {
			t.Fatal(err)
		}
		if got, err := UnmarshalEventType(name); err != nil || got != typ {
			t.Errorf("%s is written %s, which reads %s, %v", typ, name, got, err)
		}
	}
}
