package event

import (
	"strconv"
	"strings"

	"github.com/backplane-dev/backplane/internal/fault"
)

// Position is a place in the log. Positions are dense and count from 1; 0 is
// the place before the first event.
type Position int64

// Cursor is a position of one timeline. A restored database begins another
// timeline, as what it will say at a position may differ from what it once said.
// The zero Cursor is no place at all.
type Cursor struct {
	Timeline string // lower-case letters and digits
	Position Position
}

// String returns the plain form, for operators: package cursor encodes it for clients.
func (c Cursor) String() string {
	return c.Timeline + "." + strconv.FormatInt(int64(c.Position), 10)
}

const (
	maxTimeline = 32 // characters; ours have 12
	maxDigits   = 19 // of a position, an int64
)

// ParseCursor reads a cursor that String made; anything else is CURSOR_INVALID.
// Whether the log has such a place is for Log.Locate to say.
func ParseCursor(s string) (Cursor, error) {
	timeline, digits, found := strings.Cut(s, ".")
	foreign := func(r rune) bool { return (r < '0' || r > '9') && (r < 'a' || r > 'z') }
	if !found || timeline == "" || len(timeline) > maxTimeline || len(digits) > maxDigits || strings.ContainsFunc(timeline, foreign) {
		return Cursor{}, errInvalid()
	}
	n, err := strconv.ParseInt(digits, 10, 64)
	c := Cursor{timeline, Position(n)}
	if err != nil || n < 0 || c.String() != s {
		return Cursor{}, errInvalid() // one place, one text
	}
	return c, nil
}

func errInvalid() *fault.Error {
	return fault.New(fault.CursorInvalid, "This is not a cursor of the event log.")
}
