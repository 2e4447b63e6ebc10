package eventlog

import (
	"github.com/backplane-dev/backplane/internal/event"
	"github.com/backplane-dev/backplane/internal/fault"
)

func errUnknown() *fault.Error {
	return fault.New(fault.CursorUnknown,
		"The event log does not know this cursor: the database was restored since. Read what you show anew, then follow from eventCursor.")
}

func errExpired(oldest event.Cursor) *fault.Error {
	return fault.New(fault.CursorExpired,
		"The events after this cursor are not kept any more; the oldest cursor to go on from is %s. Read what you show anew.", oldest)
}
