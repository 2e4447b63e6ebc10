// Package page owns pages of lists: what a client may ask for, the cursors that
// mark a place between two rows, and how a page is cut from the rows read.
//
// Cursors are keyset cursors. They name the order and the last row's place in
// it, not an offset, so a page stays right while rows come and go before it. The
// cursors of SkipCursor are for legacy REST clients, which count rows.
package page

import (
	"encoding/base64"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/backplane-dev/backplane/internal/fault"
)

// Sizes of pages.
const (
	DefaultSize = 20
	MaxSize     = 100
)

// MaxCount is up to where the rows of a list are counted, since a count reads what it
// counts: MaxCount+1 says that there are more.
const MaxCount = 10_000

// MaxSkip bounds the rows that a SkipCursor skips, since all of them are read.
const MaxSkip = 10_000

// Args is what a client asks for: the first rows after a cursor or the last
// rows before one. Nil means not given.
type Args struct {
	First, Last   *int
	After, Before *string
}

// Cursor marks a row's place in an order.
type Cursor struct {
	Order string // name of the order, e.g. CREATED_AT_DESC; a cursor is only good for its own
	Key   string // the row's value of what the order sorts by, in a form that Order's reader understands
	ID    string // the row's id, which breaks ties
}

// MaxKey bounds a key in bytes. The longest are sort keys of names, see validate.MaxSortKey; a
// test of package store walks each list by its longest keys.
const MaxKey = 1024

// maxCursor bounds a cursor's text: a key, and an order and an id, which are short.
var maxCursor = base64.RawURLEncoding.EncodedLen(MaxKey + 512)

// separator stands between the parts of a cursor. No text of a database has it.
const separator = "\x00"

// String encodes the cursor for a client; the text is opaque.
func (c Cursor) String() string {
	return base64.RawURLEncoding.EncodeToString([]byte(c.Order + separator + c.Key + separator + c.ID))
}

// ParseCursor reads a cursor that String made, for the order it is used in.
func ParseCursor(order, s string) (Cursor, error) {
	if len(s) > maxCursor {
		return Cursor{}, errCursor()
	}
	b, err := base64.RawURLEncoding.Strict().DecodeString(s)
	if err != nil || !utf8.Valid(b) || strings.ContainsAny(s, "\r\n") { // one cursor, one text
		return Cursor{}, errCursor()
	}
	parts := strings.Split(string(b), separator)
	if len(parts) != 3 || parts[0] != order {
		return Cursor{}, errCursor()
	}
	return Cursor{parts[0], parts[1], parts[2]}, nil
}

// skipOrder takes the place of an order in a SkipCursor. No list has an order of this name.
const skipOrder = "SKIP"

// SkipCursor returns a cursor behind the first n rows of a list in any order, n from 1 to MaxSkip.
// It is not good for a page that is read from its end.
func SkipCursor(n int) string { return Cursor{Order: skipOrder, Key: strconv.Itoa(n)}.String() }

// parseSkip returns how many rows a SkipCursor skips; ok is false for another cursor.
func parseSkip(s string) (n int, ok bool) {
	c, err := ParseCursor(skipOrder, s)
	if err != nil {
		return 0, false
	}
	n, err = strconv.Atoi(c.Key)
	return n, err == nil && n > 0 && n <= MaxSkip && SkipCursor(n) == s
}

func errCursor() error {
	return fault.New(fault.CursorInvalid, "This cursor does not come from a list in this order.")
}

// Window is a checked Args: which rows to read, and in which direction.
type Window struct {
	Limit    int     // rows of the page; read one more to learn whether there are others
	Backward bool    // read in reverse order, from the end or from Before
	Skip     int     // rows to pass over, from the start; 0 if Backward
	After    *Cursor // rows strictly behind this place
	Before   *Cursor // rows strictly ahead of this place
}

// Window checks the arguments against the order they are used in.
func (a Args) Window(order string) (Window, error) {
	w := Window{Limit: DefaultSize}
	if a.First != nil && a.Last != nil {
		return w, fault.New(fault.PageSizeInvalid, "Give first or last, not both.")
	}
	size, name := a.First, "first"
	if a.Last != nil {
		size, name, w.Backward = a.Last, "last", true
	}
	if size != nil {
		if *size < 0 || *size > MaxSize {
			return w, fault.New(fault.PageSizeInvalid, "%s must be from 0 to %d, not %d.", name, MaxSize, *size).At(name)
		}
		w.Limit = *size
	}
	var err error
	if a.After != nil && !w.Backward {
		if n, ok := parseSkip(*a.After); ok {
			w.Skip, a.After = n, nil
		}
	}
	if w.After, err = parseOptional(order, a.After, "after"); err != nil {
		return w, err
	}
	w.Before, err = parseOptional(order, a.Before, "before")
	return w, err
}

func parseOptional(order string, s *string, name string) (*Cursor, error) {
	if s == nil {
		return nil, nil
	}
	c, err := ParseCursor(order, *s)
	if err != nil {
		return nil, fault.From(err).At(name)
	}
	return &c, nil
}

// Page is one page of a list.
type Page[T any] struct {
	Items   []T
	Cursors []string // one for each item
	HasNext bool
	HasPrev bool
	Whole   bool // the page is the whole list, so that its items need not be counted
}

// Cut makes the page from the rows that a Window read: in the window's own
// direction, at most Limit+1 of them. There are rows on the side that the
// client came from if it sent a cursor, as Relay allows.
func Cut[T any](w Window, rows []T, cursor func(T) Cursor) Page[T] {
	more := len(rows) > w.Limit
	if more {
		rows = rows[:w.Limit]
	}
	p := Page[T]{Items: slices.Clone(rows), HasNext: more, HasPrev: w.After != nil || w.Skip > 0}
	p.Whole = !more && w.After == nil && w.Before == nil && w.Skip == 0
	if w.Backward {
		slices.Reverse(p.Items)
		p.HasNext, p.HasPrev = w.Before != nil, more
	}
	p.Cursors = make([]string, len(p.Items))
	for i, row := range p.Items {
		p.Cursors[i] = cursor(row).String()
	}
	return p
}
