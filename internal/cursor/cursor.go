// Package cursor encodes cursors of the event log for clients, as text that does not show the
// position: two positions would tell a caller how many events all callers made in between.
//
// A cursor is one AES-256 block over its timeline and position, under a key that all nodes of an
// installation derive from its data key: deterministic, valid on each node and across restarts, and
// without order or distance. Inside the server cursors are of type event.Cursor; the executor puts
// the Codec into the context of each operation, where the scalar Cursor finds it. Commands, sinks
// and logs, which are for operators, show the plain form of event.Cursor.String.
package cursor

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"encoding/base64"
	"encoding/binary"
	"strings"

	"github.com/backplane-dev/backplane/internal/auth"
	"github.com/backplane-dev/backplane/internal/event"
	"github.com/backplane-dev/backplane/internal/fault"
	"github.com/backplane-dev/backplane/internal/secrets"
)

// prefix begins each opaque cursor. It names the form: another one gets another letter.
const prefix = "c"

// encoding is strict, so that a cursor has one text.
var encoding = base64.RawURLEncoding.Strict()

var textLength = len(prefix) + encoding.EncodedLen(aes.BlockSize)

// Codec encodes and decodes opaque cursors. It is immutable and safe for concurrent use.
type Codec struct{ block cipher.Block }

// NewCodec returns the codec of the key, which is equal on all nodes.
func NewCodec(key [secrets.Size]byte) *Codec {
	block, err := aes.NewCipher(key[:])
	if err != nil {
		panic("cursor: " + err.Error()) // only for keys of a wrong size
	}
	return &Codec{block}
}

// NewRandomCodec returns a codec whose cursors no other codec can read.
func NewRandomCodec() *Codec {
	var key [secrets.Size]byte
	_, _ = rand.Read(key[:]) // documented never to fail
	return NewCodec(key)
}

// Encode returns the opaque text of the cursor. Equal cursors have equal texts.
func (c *Codec) Encode(at event.Cursor) string {
	var block [aes.BlockSize]byte
	binary.BigEndian.PutUint64(block[:], packTimeline(at.Timeline))
	binary.BigEndian.PutUint64(block[8:], uint64(at.Position)) //nolint:gosec // G115: positions are not negative; Decode refuses those that are
	c.block.Encrypt(block[:], block[:])
	return prefix + encoding.EncodeToString(block[:])
}

// Decode reads an opaque or a plain cursor. Text that is neither is CURSOR_INVALID; an opaque cursor that
// the key did not make is CURSOR_UNKNOWN, or has a timeline that the log does not have and refuses.
func (c *Codec) Decode(text string) (event.Cursor, error) {
	block, opaque := decodeBlock(text)
	if !opaque {
		return event.ParseCursor(text)
	}
	c.block.Decrypt(block[:], block[:])
	timeline := unpackTimeline(binary.BigEndian.Uint64(block[:]))
	position := event.Position(binary.BigEndian.Uint64(block[8:])) //nolint:gosec // G115: what overflows is negative, and refused
	if timeline == "" || position < 0 {
		return event.Cursor{}, errUnknown()
	}
	return event.Cursor{Timeline: timeline, Position: position}, nil
}

// Check returns CURSOR_INVALID for text that is no cursor of either form.
func Check(text string) error {
	if _, opaque := decodeBlock(text); opaque {
		return nil
	}
	_, err := event.ParseCursor(text)
	return err
}

func decodeBlock(text string) (block [aes.BlockSize]byte, ok bool) {
	digits, found := strings.CutPrefix(text, prefix)
	if !found || len(text) != textLength {
		return block, false
	}
	n, err := encoding.Decode(block[:], []byte(digits))
	return block, err == nil && n == len(block)
}

// A timeline of at most maxTimeline letters and digits is a number of base timelineBase, without
// the digit 0, so that no two are one number.
const (
	maxTimeline  = 12 // 37^12 < 2^63
	timelineBase = 37
	alphabet     = "0123456789abcdefghijklmnopqrstuvwxyz"
)

func packTimeline(timeline string) (n uint64) {
	if len(timeline) > maxTimeline {
		panic("cursor: the timeline " + timeline + " is longer than those of the store")
	}
	for i := range len(timeline) {
		n = n*timelineBase + uint64(strings.IndexByte(alphabet, timeline[i])+1) //nolint:gosec // G115: at least 0
	}
	return n
}

// unpackTimeline returns the timeline of the number, empty if there is none.
func unpackTimeline(n uint64) string {
	var text [maxTimeline]byte
	i := len(text)
	for ; n > 0; n /= timelineBase {
		digit := n % timelineBase
		if digit == 0 || i == 0 {
			return ""
		}
		i--
		text[i] = alphabet[digit-1]
	}
	return string(text[i:])
}

type codecKey struct{}

// With returns a context whose operation has its cursors encoded and decoded by the codec.
func With(ctx context.Context, c *Codec) context.Context {
	return context.WithValue(ctx, codecKey{}, c)
}

// Encode returns the text of the cursor for the client whose operation runs under ctx.
func Encode(ctx context.Context, at event.Cursor) string { return codecFrom(ctx).Encode(at) }

// Decode reads a cursor that the caller in ctx gave. Plain cursors, such as sinks export, are for STAFF
// and ADMIN, and CURSOR_UNKNOWN for other callers, whom they would help to find the head.
func Decode(ctx context.Context, text string) (event.Cursor, error) {
	at, err := codecFrom(ctx).Decode(text)
	if _, opaque := decodeBlock(text); err == nil && !opaque && !auth.From(ctx).IsStaff() {
		return event.Cursor{}, errUnknown()
	}
	return at, err
}

// codecFrom returns the codec of ctx. The executor sets one for each operation.
func codecFrom(ctx context.Context) *Codec {
	c, ok := ctx.Value(codecKey{}).(*Codec)
	if !ok {
		panic("cursor: there is no codec in the context")
	}
	return c
}

func errUnknown() *fault.Error {
	return fault.New(fault.CursorUnknown, "The event log does not know this cursor. Read what you show anew, then follow from eventCursor.")
}
