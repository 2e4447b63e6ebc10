package cursor_test

import (
	"context"
	"encoding/base64"
	"math"
	"strings"
	"testing"
	"testing/quick"

	"github.com/backplane-dev/backplane/internal/auth"
	"github.com/backplane-dev/backplane/internal/cursor"
	"github.com/backplane-dev/backplane/internal/event"
	"github.com/backplane-dev/backplane/internal/fault"
	"github.com/backplane-dev/backplane/internal/page"
)

var line = "0a1b2c3d4e5f"

func TestCodec_gives_back_what_it_encoded(t *testing.T) {
	t.Parallel()
	codec, other := cursor.NewCodec([32]byte{1}), cursor.NewCodec([32]byte{2})
	const digits = "0123456789abcdefghijklmnopqrstuvwxyz"
	seen := map[string]event.Cursor{}
	roundTrip := func(n uint64, length uint8, position int64) bool {
		name := make([]byte, 1+length%12)
		for i := range name {
			name[i], n = digits[n%36], n/36
		}
		at := event.Cursor{Timeline: string(name), Position: event.Position(position & math.MaxInt64)}
		text := codec.Encode(at)
		got, err := codec.Decode(text)
		before, twice := seen[text]
		seen[text] = at
		foreign, foreignErr := other.Decode(text)
		return err == nil && got == at && (!twice || before == at) && text == codec.Encode(at) && cursor.Check(text) == nil &&
			(foreignErr != nil && fault.Is(foreignErr, fault.CursorUnknown) || foreign.Timeline != at.Timeline)
	}
	if err := quick.Check(roundTrip, &quick.Config{MaxCount: 10_000}); err != nil {
		t.Error(err)
	}
	for _, at := range []event.Cursor{{Timeline: "0"}, {Timeline: "00"}, {Timeline: "zzzzzzzzzzzz", Position: math.MaxInt64}, {Timeline: line}} {
		if got, err := codec.Decode(codec.Encode(at)); err != nil || got != at {
			t.Errorf("the cursor %v comes back as %v, %v", at, got, err)
		}
	}
}

// A client sees neither order nor distance: bits of neighbours differ as those of random text.
func TestCodec_hides_order_and_distance(t *testing.T) {
	t.Parallel()
	codec := cursor.NewCodec([32]byte{1})
	ascending, equalBytes := 0, 0
	const n = 10_000
	last := codec.Encode(event.Cursor{Timeline: line})
	for p := range event.Position(n) {
		text := codec.Encode(event.Cursor{Timeline: line, Position: p + 1})
		if len(text) != len(last) || strings.Contains(text, ".") {
			t.Fatalf("the cursors %s and %s differ in form", last, text)
		}
		if text > last {
			ascending++
		}
		for i := 1; i < len(text); i++ {
			if text[i] == last[i] {
				equalBytes++
			}
		}
		last = text
	}
	if ascending < 4*n/10 || ascending > 6*n/10 || equalBytes > n {
		t.Errorf("of %d neighbours %d ascend, and %d characters are equal; want about half, and 1/64 of 22 each", n, ascending, equalBytes)
	}
}

func TestCodec_refuses_text_that_is_no_cursor(t *testing.T) {
	t.Parallel()
	codec := cursor.NewCodec([32]byte{1})
	good := codec.Encode(event.Cursor{Timeline: line, Position: 7})
	for name, text := range map[string]string{
		"no text": "", "the prefix": "c", "another prefix": "d" + good[1:], "a shorter one": good[:len(good)-1], "a longer one": good + "A",
		"padding": good + "==", "the alphabet of standard base64": "c" + strings.Repeat("/", 22), "a line end": good[:5] + "\n" + good[6:],
		"bits that are left over": "c" + strings.Repeat("A", 21) + "B", "white space": " " + good,
	} {
		if at, err := codec.Decode(text); !fault.Is(err, fault.CursorInvalid) || at != (event.Cursor{}) {
			t.Errorf("%s: Decode(%q) = %v, %v, want CURSOR_INVALID", name, text, at, err)
		}
		if !fault.Is(cursor.Check(text), fault.CursorInvalid) {
			t.Errorf("%s: Check takes %q", name, text)
		}
	}
	for i := range 16 * 8 { // each bit of the block
		block, _ := base64.RawURLEncoding.DecodeString(good[1:])
		block[i/8] ^= 1 << (i % 8)
		if at, err := codec.Decode("c" + base64.RawURLEncoding.EncodeToString(block)); err == nil && at.Timeline == line {
			t.Errorf("with bit %d changed it is the cursor %v", i, at)
		}
	}
}

func TestDecode_takes_plain_cursors_of_staff_alone(t *testing.T) {
	t.Parallel()
	codec := cursor.NewRandomCodec()
	at := event.Cursor{Timeline: line, Position: 7}
	as := func(roles ...auth.Role) context.Context {
		ctx := cursor.With(t.Context(), codec)
		if roles == nil {
			return ctx
		}
		return auth.With(ctx, &auth.Principal{UserID: "usr_1", Roles: roles, Credential: auth.SessionCredential("ses_1")})
	}
	for name, tt := range map[string]struct {
		ctx   context.Context
		plain fault.Code
	}{
		"an anonymous caller": {as(), fault.CursorUnknown},
		"a customer":          {as(auth.Customer), fault.CursorUnknown},
		"a service":           {as(auth.Service), fault.CursorUnknown},
		"staff":               {as(auth.Staff), ""},
		"an admin":            {as(auth.Admin), ""},
	} {
		if got, err := cursor.Decode(tt.ctx, cursor.Encode(tt.ctx, at)); err != nil || got != at {
			t.Errorf("%s: the opaque cursor is %v, %v", name, got, err)
		}
		for _, text := range []string{at.String(), line + ".999999"} {
			if _, err := cursor.Decode(tt.ctx, text); (err == nil) != (tt.plain == "") || err != nil && !fault.Is(err, tt.plain) {
				t.Errorf("%s: the plain cursor %s gives %v, want %q", name, text, err, tt.plain)
			}
		}
	}
}

func TestPages_have_opaque_cursors(t *testing.T) {
	t.Parallel()
	ctx := cursor.With(t.Context(), cursor.NewRandomCodec())
	at := event.Cursor{Timeline: line, Position: 7}
	text, foreign := cursor.Encode(ctx, at), foreignCursor(ctx, at)
	args, err := cursor.DecodeArgs(ctx, page.Args{After: &text})
	if err != nil || args.Before != nil || *args.After != at.String() {
		t.Errorf("DecodeArgs = %v, %v", args, err)
	}
	for name, args := range map[string]page.Args{"after": {After: &foreign}, "before": {After: &text, Before: &foreign}} {
		if _, err := cursor.DecodeArgs(ctx, args); !fault.Is(err, fault.CursorUnknown) || strings.Join(fault.From(err).Path, ".") != name {
			t.Errorf("DecodeArgs of a foreign cursor in %s = %v", name, err)
		}
	}
	plain := []string{at.String()}
	got := cursor.EncodePage(ctx, page.Page[*event.Event]{Items: []*event.Event{{Cursor: at}}, Cursors: plain})
	if len(got.Cursors) != 1 || got.Cursors[0] != text || plain[0] != at.String() {
		t.Errorf("EncodePage gives %v, and changed what others share: %v", got.Cursors, plain)
	}
}

// foreignCursor returns a cursor of another key that the codec of ctx refuses by itself: about one in eight decrypts to some
// timeline, which the log refuses.
func foreignCursor(ctx context.Context, at event.Cursor) string {
	for {
		text := cursor.NewRandomCodec().Encode(at)
		if _, err := cursor.Decode(ctx, text); err != nil {
			return text
		}
	}
}

func FuzzCodec_Decode(f *testing.F) {
	codec := cursor.NewCodec([32]byte{1})
	for _, s := range []string{"", "c", "x.1", "0000000000000.0", codec.Encode(event.Cursor{Timeline: line, Position: 7}), "c" + strings.Repeat("A", 22), "c" + strings.Repeat("é", 11)} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		at, err := codec.Decode(s)
		switch {
		case err == nil && (at.Timeline == "" || at.Position < 0 || cursor.Check(s) != nil):
			t.Errorf("Decode(%q) = %+v, which is no cursor", s, at)
		case err == nil && at.String() != s && codec.Encode(at) != s: // a plain one may have a timeline that is too long to encode
			t.Errorf("Decode(%q) = %+v, which has another text", s, at)
		case fault.Is(err, fault.CursorInvalid) != (cursor.Check(s) != nil), err != nil && at != (event.Cursor{}):
			t.Errorf("Decode(%q) = %+v, %v, and Check says %v", s, at, err, cursor.Check(s))
		}
	})
}

func BenchmarkCodec_Encode(b *testing.B) {
	codec := cursor.NewRandomCodec()
	at := event.Cursor{Timeline: line, Position: 123_456}
	for b.Loop() {
		codec.Encode(at)
	}
}
