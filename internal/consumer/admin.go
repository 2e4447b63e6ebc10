package consumer

import (
	"context"
	"math"
	"slices"
	"time"

	"github.com/backplane-dev/backplane/internal/auth"
	"github.com/backplane-dev/backplane/internal/claim"
	"github.com/backplane-dev/backplane/internal/event"
	"github.com/backplane-dev/backplane/internal/eventlog"
	"github.com/backplane-dev/backplane/internal/fault"
	"github.com/backplane-dev/backplane/internal/lease"
	"github.com/backplane-dev/backplane/internal/page"
	"github.com/backplane-dev/backplane/internal/uid"
)

// Status is the progress of a consumer or sink.
type Status struct {
	Name        string
	Cursor      event.Cursor // of its offset
	Lag         int          // positions between the offset and the head
	Owner       *string
	MovedAt     time.Time
	DeadLetters int // pending
}

// Admin shows consumers, sinks and dead letters to an ADMIN, and requests replays. Its
// methods check the caller's role, except those for the operator's commands.
type Admin struct {
	log         *eventlog.Log
	leases      lease.Store
	deadLetters DeadLetterReader
	now         func() time.Time
}

// NewAdmin returns an Admin whose clock is now.
func NewAdmin(log *eventlog.Log, leases lease.Store, deadLetters DeadLetterReader, now func() time.Time) *Admin {
	return &Admin{log, leases, deadLetters, now}
}

// Consumers returns all consumers and sinks, by name. It requires a session of an ADMIN.
func (o *Admin) Consumers(ctx context.Context) ([]*Status, error) {
	if err := requireAdmin(ctx); err != nil {
		return nil, err
	}
	return o.ConsumersForOperator(ctx)
}

// ConsumersForOperator is Consumers for the operator's commands, without a permission check: no
// transport calls it.
func (o *Admin) ConsumersForOperator(ctx context.Context) ([]*Status, error) {
	readers, err := o.leases.List(ctx) // before the head, so that no lag is below zero
	if err != nil {
		return nil, err
	}
	waiting, err := o.deadLetters.CountPending(ctx)
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
// log. It requires a session of an ADMIN.
func (o *Admin) DeadLetters(ctx context.Context, f DeadLetterFilter, args page.Args) (page.Page[*DeadLetter], error) {
	if err := requireAdmin(ctx); err != nil {
		return page.Page[*DeadLetter]{}, err
	}
	return o.deadLetters.List(ctx, f, args)
}

// CountDeadLetters returns how many DeadLetters would show on all its pages.
func (o *Admin) CountDeadLetters(ctx context.Context, f DeadLetterFilter) (int, error) {
	if err := requireAdmin(ctx); err != nil {
		return 0, err
	}
	return o.deadLetters.Count(ctx, f)
}

// DeadLettersByIDs returns the dead letters that exist and that the caller may see.
func (o *Admin) DeadLettersByIDs(ctx context.Context, ids []uid.DeadLetter) (map[uid.DeadLetter]*DeadLetter, error) {
	if requireAdmin(ctx) != nil {
		return nil, nil //nolint:nilerr // hidden and absent look alike
	}
	return o.deadLetters.ByIDs(ctx, slices.DeleteFunc(slices.Clone(ids), func(id uid.DeadLetter) bool { return !id.Valid() }))
}

// maxReplays bounds the ids of one call.
const maxReplays = page.MaxSize

// RequestReplay requests replays, and returns how many dead letters will be replayed.
// It requires a session of an ADMIN. BAD_INPUT for neither or both of consumer and
// ids, or too many; DEAD_LETTER_NOT_FOUND if none of the ids is pending.
func (o *Admin) RequestReplay(ctx context.Context, cl claim.Claim, which ReplayRequest) (int, error) {
	if err := requireAdmin(ctx); err != nil {
		return 0, err
	}
	return o.requestReplay(ctx, cl, which)
}

// RequestReplayForOperator is RequestReplay for the operator's commands, without a permission
// check: no transport calls it.
func (o *Admin) RequestReplayForOperator(ctx context.Context, which ReplayRequest) (int, error) {
	return o.requestReplay(ctx, claim.None, which)
}

func (o *Admin) requestReplay(ctx context.Context, cl claim.Claim, which ReplayRequest) (int, error) {
	if (which.Consumer == "") == (len(which.IDs) == 0) || len(which.IDs) > maxReplays {
		return 0, fault.New(fault.BadInput, "Give either the name of a consumer or 1 to %d ids of dead letters.", maxReplays)
	}
	for _, id := range which.IDs {
		if !id.Valid() {
			return 0, errDeadLetterNotFound()
		}
	}
	n, err := o.deadLetters.RequestReplay(ctx, cl, which)
	if err == nil && n == 0 && which.Consumer == "" {
		err = errDeadLetterNotFound()
	}
	return n, err
}

// requireAdmin refuses all but ADMIN: no scope of an API key covers it.
func requireAdmin(ctx context.Context) error {
	p, err := auth.RequireSession(ctx)
	if err == nil && !p.Has(auth.Admin) {
		err = fault.New(fault.Forbidden, "This needs the role ADMIN.")
	}
	return err
}

func errDeadLetterNotFound() *fault.Error {
	return fault.New(CodeDeadLetterNotFound, "There is no such pending dead letter.")
}
