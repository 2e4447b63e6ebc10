package consumer

import (
	"context"
	"strings"
	"time"

	"github.com/backplane-dev/backplane/internal/claim"
	"github.com/backplane-dev/backplane/internal/event"
	"github.com/backplane-dev/backplane/internal/fault"
	"github.com/backplane-dev/backplane/internal/lease"
	"github.com/backplane-dev/backplane/internal/page"
	"github.com/backplane-dev/backplane/internal/setting"
	"github.com/backplane-dev/backplane/internal/uid"
)

// DeadLetter is an event that a consumer failed to handle, or a later event of the
// same subject. It has a copy of the event, because retention may remove it from the
// log.
type DeadLetter struct {
	ID          uid.DeadLetter
	Consumer    string
	Event       *event.Event
	Failure     Failure
	FailedAt    time.Time  // when it was parked, or its last replay failed
	RequestedAt *time.Time // when the pending replay was requested; nil without one
	ReplayedAt  *time.Time // when a replay handled it
}

// Failure says why an event was parked.
type Failure struct {
	Attempts int        // in all; 0 for an event that waits behind another
	Code     fault.Code // of the last attempt's error
	Message  string     // of that error, for the end user
	Detail   string     // full error text, for the operator only
}

// DeadLetterConfig says how long dead letters are kept.
type DeadLetterConfig struct {
	Retention time.Duration // since the last failure or request, without a replay
}

// Settings declares the tunables.
func (c *DeadLetterConfig) Settings() []setting.Setting {
	return []setting.Setting{
		setting.Period(&c.Retention, "DEAD_LETTER_RETENTION", 90*24*time.Hour, "how long a dead letter waits for its replay, from its last failure on; then it is dropped, and the log says so"),
	}
}

// DroppedDeadLetter says which dead letter was removed without a replay.
type DroppedDeadLetter struct {
	ID        uid.DeadLetter
	Consumer  string
	EventID   uid.Event
	Type      event.Type
	SubjectID string
	Position  event.Position
	FailedAt  time.Time
	Code      fault.Code
}

// maxDetail bounds the stored error text, in bytes.
const maxDetail = 4000

func newFailure(err error, attempts int) Failure {
	f := fault.From(err)
	detail := strings.ReplaceAll(strings.ToValidUTF8(err.Error(), "?"), "\x00", "?")
	if len(detail) > maxDetail {
		detail = strings.ToValidUTF8(detail[:maxDetail], "")
	}
	return Failure{Attempts: attempts, Code: f.Code, Message: f.Message, Detail: detail}
}

// DeadLetterQueue stores dead letters for the consumers that park and replay them. While
// one of a subject is pending, the consumer parks later events of the subject too, so
// that a replay handles them in order.
type DeadLetterQueue interface {
	// Park stores the event as a dead letter of the lease's consumer, unless it is one.
	// It inherits a replay requested for those before it. claim.ErrAlreadyHandled means that
	// the consumer has handled the event, lease.ErrLost that the lease has another owner or epoch.
	Park(ctx context.Context, t lease.Lease, e *event.Event, f Failure) error
	// HasPending reports whether dead letters of the subject are pending, or any if it is empty.
	HasPending(ctx context.Context, consumer, subject string) (bool, error)
	// ListRequested returns dead letters with a requested replay, at most limit, in order
	// per subject.
	ListRequested(ctx context.Context, consumer string, limit int) ([]*DeadLetter, error)
	// IsNext reports whether the dead letter is to be replayed now: its replay is requested, and no
	// other of its subject is pending before it.
	IsNext(ctx context.Context, l *DeadLetter) (bool, error)
	// CompleteReplay marks the dead letter as replayed and requests the replay of the
	// pending rest of its subject.
	CompleteReplay(ctx context.Context, l *DeadLetter) error
	// FailReplay stores the failure of a replay, and withdraws the requests for the
	// subject. lease.ErrLost means that the lease has another owner or epoch.
	FailReplay(ctx context.Context, t lease.Lease, l *DeadLetter, f Failure) error
}

// DeadLetterFilter selects dead letters. Nil fields filter nothing.
type DeadLetterFilter struct {
	Consumer  *string
	SubjectID *string
	Replayed  bool // include replayed ones
}

// ReplayRequest selects the dead letters to replay: all pending ones of a consumer, or
// those of the subjects of the given ones.
type ReplayRequest struct {
	Consumer string
	IDs      []uid.DeadLetter // if Consumer is empty
}

// DeadLetterReader lists dead letters for operators, and stores their requests for replays.
type DeadLetterReader interface {
	// List returns a page of the dead letters that match, in the order of the log.
	List(ctx context.Context, f DeadLetterFilter, args page.Args) (page.Page[*DeadLetter], error)
	// Count returns how many dead letters match.
	Count(ctx context.Context, f DeadLetterFilter) (int, error)
	// CountPending returns how many dead letters are pending, by consumer.
	CountPending(ctx context.Context) (map[string]int, error)
	// ByIDs returns the dead letters that exist.
	ByIDs(ctx context.Context, ids []uid.DeadLetter) (map[uid.DeadLetter]*DeadLetter, error)
	// RequestReplay requests replays of pending dead letters, and returns how many: for a
	// duplicate call, those that are still pending.
	RequestReplay(ctx context.Context, cl claim.Claim, which ReplayRequest) (int, error)
}
