package eventlog

import (
	"fmt"

	"github.com/backplane-dev/backplane/internal/event"
	"github.com/backplane-dev/backplane/internal/fault"
)

func errUnknown() *fault.Error {
	return fault.New(fault.CursorUnknown,
		"The event log does not know this cursor: the database was restored since. Read what you show anew, then follow from eventCursor.")
}

// errExpired names the oldest cursor that is good to the log alone: a client would learn a position.
func errExpired(oldest event.Cursor) *fault.Error {
	return fault.New(fault.CursorExpired,
		"The events after this cursor are not kept any more. Read what you show anew, then follow from eventCursor.").Because(fmt.Errorf("the oldest cursor is %s", oldest))
}

// TooManyTimed refuses a range of time with more events than MaxTimed.
func TooManyTimed() *fault.Error {
	return fault.New(fault.BadInput, "More than %d events happened in this time. Narrow it, give subjectId or actor, or take the cursor of an event of a short time and go on after that.", MaxTimed).At("since")
}
