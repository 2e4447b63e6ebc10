package consumer

import (
	"context"
	"math"
	"slices"
	"time"

	"github.com/backplane-dev/backplane/internal/auth"
	"github.com/backplane-dev/backplane/internal/event"
	"github.com/backplane-dev/backplane/internal/eventlog"
	"github.com/backplane-dev/backplane/internal/fault"
	"github.com/backplane-dev/backplane/internal/lease"
	"github.com/backplane-dev/backplane/internal/page"
	"github.com/backplane-dev/backplane/internal/uid"
)

// Status is how a named reader of the log stands.
type Status struct {
	Name        string
	Cursor      event.Cursor // it is done with everything up to here
	Lag         int          // events behind the cursor
	Owner       *string
	MovedAt     time.Time
	DeadLetters int // that wait
}

// Admin is what an ADMIN may know of consumers and sinks, and do for them. Its
// exported methods ask who is calling; those of the operator's commands do not.
type Admin struct {
	log     *eventlog.Log
	offsets lease.Offsets
	archive DeadLetterReader
	now     func() time.Time
}

// NewAdmin returns an Overseer that tells the time by now.
func NewAdmin(log *eventlog.Log, offsets lease.Offsets, archive DeadLetterReader, now func() time.Time) *Admin {
	return &Admin{log, offsets, archive, now}
}

// Consumers returns all named readers but the cleaner, by name. It needs a
// session of an ADMIN.
func (o *Admin) Consumers(ctx context.Context) ([]*Status, error) {
	if err := mayOversee(ctx); err != nil {
		return nil, err
	}
	return o.ConsumersForOperator(ctx)
}

// ConsumersForOperator is Consumers for the operator, who needs no permission: no transport
// offers it.
func (o *Admin) ConsumersForOperator(ctx context.Context) ([]*Status, error) {
	readers, err := o.offsets.List(ctx) // before the head, so that no lag is below zero
	if err != nil {
		return nil, err
	}
	waiting, err := o.archive.CountPending(ctx)
	if err != nil {
		return nil, err
	}
	state, err := o.log.State(ctx)
	if err != nil {
		return nil, err
	}
	all := make([]*Status, 0, len(readers))
	for _, r := range readers {
		if r.Name == eventlog.CleanerLease {
			continue
		}
		s := &Status{
			Name: r.Name, Cursor: event.Cursor{Timeline: state.Timeline, Position: r.Position}, MovedAt: r.MovedAt, DeadLetters: waiting[r.Name],
			Lag: int(min(max(0, state.Head-r.Position), math.MaxInt32)),
		}
		if r.Owner != "" && o.now().Before(r.ExpiresAt) {
			s.Owner = &r.Owner
		}
		all = append(all, s)
	}
	return all, nil
}

// DeadLetters returns a page of the dead letters that match, in the order of the
// log. It needs a session of an ADMIN.
func (o *Admin) DeadLetters(ctx context.Context, f DeadLetterFilter, args page.Args) (page.Page[*DeadLetter], error) {
	if err := mayOversee(ctx); err != nil {
		return page.Page[*DeadLetter]{}, err
	}
	return o.archive.List(ctx, f, args)
}

// CountDeadLetters returns how many DeadLetters would show on all its pages.
func (o *Admin) CountDeadLetters(ctx context.Context, f DeadLetterFilter) (int, error) {
	if err := mayOversee(ctx); err != nil {
		return 0, err
	}
	return o.archive.Count(ctx, f)
}

// DeadLettersByIDs returns those that exist and that the caller may see.
func (o *Admin) DeadLettersByIDs(ctx context.Context, ids []uid.DeadLetter) (map[uid.DeadLetter]*DeadLetter, error) {
	if mayOversee(ctx) != nil {
		return nil, nil //nolint:nilerr // hidden and absent look alike
	}
	return o.archive.ByIDs(ctx, slices.DeleteFunc(slices.Clone(ids), func(id uid.DeadLetter) bool { return !id.Valid() }))
}

// maxReplays bounds the ids of one call.
const maxReplays = page.MaxSize

// RequestReplay asks for replays, and returns how many dead letters are to be replayed.
// It needs a session of an ADMIN. BAD_INPUT for neither or both of consumer and
// ids, or too many; DEAD_LETTER_NOT_FOUND if none of the ids is one that waits.
func (o *Admin) RequestReplay(ctx context.Context, which ReplayRequest) (int, error) {
	if err := mayOversee(ctx); err != nil {
		return 0, err
	}
	return o.RequestReplayForOperator(ctx, which)
}

// RequestReplayForOperator is Replay for the operator, who needs no permission: no transport offers
// it.
func (o *Admin) RequestReplayForOperator(ctx context.Context, which ReplayRequest) (int, error) {
	if (which.Consumer == "") == (len(which.IDs) == 0) || len(which.IDs) > maxReplays {
		return 0, fault.New(fault.BadInput, "Give either the name of a consumer or 1 to %d ids of dead letters.", maxReplays)
	}
	for _, id := range which.IDs {
		if !id.Valid() {
			return 0, errNoLetter()
		}
	}
	n, err := o.archive.RequestReplay(ctx, which)
	if err == nil && n == 0 && which.Consumer == "" {
		err = errNoLetter()
	}
	return n, err
}

// mayOversee refuses all but ADMIN: no scope of an API key covers it.
func mayOversee(ctx context.Context) error {
	p, err := auth.RequireSession(ctx)
	if err == nil && !p.Has(auth.Admin) {
		err = fault.New(fault.Forbidden, "This needs the role ADMIN.")
	}
	return err
}

func errNoLetter() *fault.Error {
	return fault.New(fault.DeadLetterNotFound, "There is no such dead letter that waits.")
}
