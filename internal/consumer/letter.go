package consumer

import (
	"context"
	"strings"
	"time"

	"github.com/backplane-dev/backplane/internal/event"
	"github.com/backplane-dev/backplane/internal/fault"
	"github.com/backplane-dev/backplane/internal/lease"
	"github.com/backplane-dev/backplane/internal/page"
	"github.com/backplane-dev/backplane/internal/uid"
)

// DeadLetter is an event that a consumer could not work on, or one that stands
// behind such an event of its subject. It has a copy of the event, which the log
// may have dropped.
type DeadLetter struct {
	ID          uid.DeadLetter
	Consumer    string
	Event       *event.Event
	Failure     Failure
	FailedAt    time.Time  // when it was last given up, or put here
	RequestedAt *time.Time // when somebody asked for a replay that has not ended yet
	ReplayedAt  *time.Time // when the consumer was done with it after all
}

// Failure is how an event was given up.
type Failure struct {
	Attempts int        // in all; 0 for an event that only stands behind another
	Code     fault.Code // of the last attempt's error
	Message  string     // of that error, for an end user
	Detail   string     // all that the error says; for the operator alone
}

// maxDetail bounds what is kept of an error, in bytes.
const maxDetail = 4000

func failureOf(err error, attempts int) Failure {
	f := fault.From(err)
	detail := strings.ReplaceAll(strings.ToValidUTF8(err.Error(), "?"), "\x00", "?")
	if len(detail) > maxDetail {
		detail = strings.ToValidUTF8(detail[:maxDetail], "")
	}
	return Failure{Attempts: attempts, Code: f.Code, Message: f.Message, Detail: detail}
}

// DeadLetterQueue keeps dead letters for the consumers that make and replay them. As long
// as one of a subject waits, later events of the subject become letters too, so
// that a replay meets them in their order.
type DeadLetterQueue interface {
	// Park makes the event a dead letter of the tenure's consumer, if it is none,
	// to be replayed if those ahead of it are. ErrHandled says that the consumer is
	// done with it, ErrLeaseLost that the tenure is over.
	Park(ctx context.Context, t lease.Lease, e *event.Event, f Failure) error
	// HasPending reports whether letters of the subject wait, or any if it is empty.
	HasPending(ctx context.Context, consumer, subject string) (bool, error)
	// ListRequested returns letters that are to be replayed, at most limit, those of one
	// subject in their order.
	ListRequested(ctx context.Context, consumer string, limit int) ([]*DeadLetter, error)
	// IsNext reports whether the letter is to be replayed now: it was asked for, and no
	// other of its subject waits ahead of it.
	IsNext(ctx context.Context, l *DeadLetter) (bool, error)
	// CompleteReplay says that the consumer is done with the letter, and that what else
	// waits of its subject is to follow.
	CompleteReplay(ctx context.Context, l *DeadLetter) error
	// FailReplay says that the letter was given up again, and that nothing of its
	// subject is to be replayed. ErrLeaseLost says that the tenure is over.
	FailReplay(ctx context.Context, t lease.Lease, l *DeadLetter, f Failure) error
}

// DeadLetterFilter says which dead letters a list shows. Nil fields filter nothing.
type DeadLetterFilter struct {
	Consumer  *string
	SubjectID *string
	Replayed  bool // also those that were replayed
}

// ReplayRequest says which dead letters are to be replayed: all that wait of a
// consumer, or those of the subjects of some.
type ReplayRequest struct {
	Consumer string
	IDs      []uid.DeadLetter // if there is no consumer
}

// DeadLetterReader reads dead letters for those who look after consumers, and notes what
// they want replayed.
type DeadLetterReader interface {
	// List returns a page of the letters that match, in the order of the log.
	List(ctx context.Context, f DeadLetterFilter, args page.Args) (page.Page[*DeadLetter], error)
	// Count returns how many letters match.
	Count(ctx context.Context, f DeadLetterFilter) (int, error)
	// CountPending returns how many letters wait, by consumer.
	CountPending(ctx context.Context) (map[string]int, error)
	// ByIDs returns the letters that exist.
	ByIDs(ctx context.Context, ids []uid.DeadLetter) (map[uid.DeadLetter]*DeadLetter, error)
	// RequestReplay asks for replays of letters that wait, and returns of how many.
	RequestReplay(ctx context.Context, which ReplayRequest) (int, error)
}
