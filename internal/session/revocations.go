package session

import (
	"context"
	"errors"
	"sync"
	"time"

	"golang.org/x/sync/semaphore"

	"github.com/backplane-dev/backplane/internal/auth"
	"github.com/backplane-dev/backplane/internal/event"
	"github.com/backplane-dev/backplane/internal/fault"
	"github.com/backplane-dev/backplane/internal/session/token"
	"github.com/backplane-dev/backplane/internal/uid"
)

// Log is the node's reader of the event log: an eventlog.Hub.
type Log interface {
	// OnDeliver adds a subscriber that gets every event, in order, before any other
	// subscriber of this node does; a gap says that some may have been missed.
	OnDeliver(fn func(events []*event.Event, gap bool))
	// OnPending adds a subscriber that gets committed events before OnDeliver does, again and
	// again, while they wait for a position. Of each the ID, Type and SubjectID are known.
	OnPending(fn func(events []*event.Event))
	// SeenLag returns how long ago all events that were committed then had been passed to the
	// subscribers.
	SeenLag() time.Duration
	// AwaitSeen waits until SeenLag is at most maxLag, for a read of the log that its callers
	// share, and reports whether that sufficed. The error is that of the read, or of ctx.
	AwaitSeen(ctx context.Context, maxLag time.Duration) (bool, error)
	// Look asks the reader to poll for new events soon. It never blocks.
	Look()
}

// revocationsIn returns what the events revoke.
func revocationsIn(events []*event.Event, gap bool) []auth.Revocation {
	var found []auth.Revocation
	if gap {
		found = append(found, auth.Revocation{})
	}
	for _, e := range events {
		switch e.Type {
		case EventSessionRevoked, EventAPIKeyRevoked:
			found = append(found, auth.Revocation{CredentialID: e.SubjectID})
		case token.EventSigningKeyRevoked: // of whom it signed tokens is not known
			found = append(found, auth.Revocation{})
		case event.UserUpdated, event.UserDeleted:
			found = append(found, auth.Revocation{User: uid.User(e.SubjectID)})
		default:
		}
	}
	return found
}

// pollAfter is the lag of the event log from which on a request asks for a poll,
// so that it stays below maxStateAge for the next one. Without requests the log is
// polled no more often than usual.
const pollAfter = maxStateAge / 2

// revocationLog is what the event log says of credentials, for as long as states
// of credentials are cached. Each batch of revocations raises a sequence number,
// and a read of a state bears the number of when it began: it is invalid if its
// credential or user was revoked under a later one.
//
// Nothing is loaded at the start, as no state is cached from before it.
type revocationLog struct {
	lifetime    time.Duration    // of cached states
	maxIDs      int              // beyond it, all cached states are invalid
	tick        func() time.Time // measures spans
	now         func() time.Time
	eventLog    Log                 // nil if the event log is not followed
	waiters     *semaphore.Weighted // a permit for each caller of AwaitSeen
	subscribers []func(auth.Revocation)

	mu       sync.RWMutex
	sequence uint64                     // of the latest batch of revocations
	minimum  uint64                     // reads that began before are invalid
	byID     map[string]revocationEntry // by id of a session, key or user
}

type revocationEntry struct {
	sequence uint64
	at       time.Time
}

func newRevocationLog(lifetime time.Duration, maxIDs int, tick, now func() time.Time) *revocationLog {
	return &revocationLog{lifetime: lifetime, maxIDs: maxIDs, tick: tick, now: now, waiters: semaphore.NewWeighted(maxWaiters), byID: map[string]revocationEntry{}}
}

// onEvents records what the events revoke, then notifies the subscribers.
func (l *revocationLog) onEvents(events []*event.Event, gap bool) {
	l.apply(revocationsIn(events, gap))
}

// apply records revocations, then notifies the subscribers.
func (l *revocationLog) apply(revoked []auth.Revocation) {
	if len(revoked) == 0 {
		return
	}
	l.record(revoked)
	for _, r := range revoked {
		for _, notify := range l.subscribers {
			notify(r)
		}
	}
}

// trust returns how far a request trusts cached states of the credential; current is what
// awaitCurrent returned. While the event log is followed a state holds until the log says
// otherwise of the credential or its user, but not beyond an expiry that a refresh may have moved.
func (l *revocationLog) trust(id string, current bool) trustFunc[*credentialState] {
	if l.eventLog == nil {
		return func(_ *cachedRead[*credentialState], age time.Duration) bool { return age < maxStateAge }
	}
	if !current {
		return func(*cachedRead[*credentialState], time.Duration) bool { return false }
	}
	return func(r *cachedRead[*credentialState], age time.Duration) bool {
		st, ended := r.result()
		switch {
		case age >= l.lifetime:
			return false
		case !ended: // its user is not known yet
			return r.sequence == l.currentSequence()
		case st.active && age >= maxStateAge && !l.now().Before(st.expiresAt):
			return false
		default:
			return r.sequence >= l.minimumSequence(id, string(st.principal.UserID))
		}
	}
}

// Bounds of the wait for a read of the event log. A read takes at most as long.
const (
	maxWaiters  = 4096
	waitTimeout = 5 * time.Second
)

// awaitCurrent waits until the event log lags no more than maxStateAge, for a read of it that all
// late requests share: if each asked the database for its own credential instead, they would hold
// up the read that ends the lag. It reports false if a whole read did not suffice. The error says
// that the database cannot be read, or that too many wait already.
func (l *revocationLog) awaitCurrent(ctx context.Context) (bool, error) {
	if l.eventLog == nil {
		return false, nil
	}
	if lag := l.eventLog.SeenLag(); lag <= maxStateAge {
		if lag > pollAfter {
			l.eventLog.Look()
		}
		return true, nil
	}
	if !l.waiters.TryAcquire(1) {
		return false, fault.New(fault.ServerBusy, "The server is busy; try again in a moment.")
	}
	defer l.waiters.Release(1)
	ctx, cancel := context.WithTimeout(ctx, waitTimeout)
	defer cancel()
	return l.eventLog.AwaitSeen(ctx, maxStateAge)
}

// AwaitRevocations waits until all revocations of a second ago have been passed to the
// subscribers of OnRevoked. It returns an error while the event log cannot be read, or is not
// followed.
func (s *Service) AwaitRevocations(ctx context.Context) error {
	current, err := s.revocations.awaitCurrent(ctx)
	if err == nil && !current {
		err = errors.New("the event log is read too slowly to know of revocations")
	}
	return err
}

// currentSequence returns the number that a read that begins now bears.
func (l *revocationLog) currentSequence() uint64 {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return l.sequence
}

// minimumSequence returns the number that a read must bear at least to hold for
// the credential of the user.
func (l *revocationLog) minimumSequence(credential, user string) uint64 {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return max(l.minimum, l.byID[credential].sequence, l.byID[user].sequence)
}

// revokedSince reports whether the principal was revoked by name since a read that bore the number.
func (l *revocationLog) revokedSince(sequence uint64, p *auth.Principal) bool {
	l.mu.RLock()
	defer l.mu.RUnlock()
	return max(l.byID[p.Credential.ID].sequence, l.byID[string(p.UserID)].sequence) > sequence
}

func (l *revocationLog) record(revoked []auth.Revocation) {
	at := l.tick()
	l.mu.Lock()
	defer l.mu.Unlock()
	l.sequence++
	for _, r := range revoked {
		id := r.CredentialID + string(r.User) // one of them
		l.evict(at)
		if id == "" {
			l.minimum = l.sequence
			continue
		}
		l.byID[id] = revocationEntry{l.sequence, at}
	}
}

// evict bounds the log: entries that have outlived the states they are about are
// dropped, and if that is not enough, all cached states become invalid.
func (l *revocationLog) evict(at time.Time) {
	if len(l.byID) < l.maxIDs {
		return
	}
	for id, e := range l.byID {
		if at.Sub(e.at) > l.lifetime {
			delete(l.byID, id)
		}
	}
	if len(l.byID) > l.maxIDs/2 {
		clear(l.byID)
		l.minimum = l.sequence
	}
}

// RecheckUser has every credential of the user authenticated again on this node, as its rights
// or name have changed. It does not block.
func (s *Service) RecheckUser(id uid.User) { s.revocations.apply([]auth.Revocation{{User: id}}) }

// RecheckCredential has the session or API key authenticated again on this node, as it may have ended.
// It does not block.
func (s *Service) RecheckCredential(id string) {
	s.revocations.apply([]auth.Revocation{{CredentialID: id}})
}

// OnRevoked adds a subscriber that is notified at once of each revocation in the
// event log, and of RecheckUser and RecheckCredential: when it is called, Authenticate applies the revocation already. The
// log's reader and writes call it, so it must be quick and must not block. Add it before the
// log is read.
func (s *Service) OnRevoked(fn func(auth.Revocation)) {
	s.revocations.subscribers = append(s.revocations.subscribers, fn)
}
