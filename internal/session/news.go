package session

import (
	"sync"
	"time"

	"github.com/backplane-dev/backplane/internal/auth"
	"github.com/backplane-dev/backplane/internal/event"
	"github.com/backplane-dev/backplane/internal/uid"
)

// Log is the node's reading of the event log: an event.Hub.
type Log interface {
	// OnDeliver adds a function that hears of every event, in order, before anybody
	// else on this node does; a gap says that some may have been missed.
	OnDeliver(fn func(events []*event.Event, gap bool))
	// Lag returns how long ago all that was committed then has been heard of.
	Lag() time.Duration
	// Look asks the reader to look for news soon. It never blocks.
	Look()
}

// Revocation names a credential that has ended, or a user who may act otherwise
// than before: deactivated, deleted, with other roles, or with another name.
// The zero value says that anybody may be concerned.
type Revocation struct {
	Session uid.Session
	Key     uid.APIKey
	User    uid.User
}

// Concerns reports whether the principal must be looked at again.
func (r Revocation) Concerns(p *auth.Principal) bool {
	switch {
	case r == Revocation{}:
		return true
	case p == nil:
		return false
	default:
		return r.User != "" && r.User == p.UserID || r.Session != "" && r.Session == p.SessionID() || r.Key != "" && r.Key == p.APIKeyID()
	}
}

// OnRevoked adds a function that hears at once of what this node's reading of
// the log tells of credentials: when it is called, Authenticate knows. It is
// called by the reader, so it must be quick and must not block. Add it before
// the log is read.
func (s *Service) OnRevoked(fn func(Revocation)) { s.news.tell = append(s.news.tell, fn) }

// Follow makes the service trust what it has read of sessions and keys until the
// log says otherwise, as long as the node's reading of the log is less than a
// second behind; otherwise every request asks the database. Without it, what was
// read is trusted for a second. Call it once, before the log is read.
func (s *Service) Follow(log Log) {
	s.feed = log
	log.OnDeliver(s.hear)
}

// lookAfter is how old the node's reading of the log may be before a request
// asks for a look, so that it is not a second old when the next one comes. While
// there are no requests nobody looks more often than usual.
const lookAfter = maxStanding / 2

// follows reports whether the log is read and what it says is recent.
func (s *Service) follows() (current bool) {
	lag := s.feed.Lag()
	if lag > lookAfter {
		s.feed.Look()
	}
	return lag <= maxStanding
}

// hear takes what the log says of credentials.
func (s *Service) hear(events []*event.Event, gap bool) {
	var heard []Revocation
	if gap {
		heard = append(heard, Revocation{})
	}
	for _, e := range events {
		switch e.Type {
		case event.SessionRevoked:
			heard = append(heard, Revocation{Session: uid.Session(e.SubjectID)})
		case event.APIKeyRevoked:
			heard = append(heard, Revocation{Key: uid.APIKey(e.SubjectID)})
		case event.UserUpdated, event.UserDeleted:
			heard = append(heard, Revocation{User: uid.User(e.SubjectID)})
		default:
		}
	}
	if len(heard) == 0 {
		return
	}
	s.news.note(heard)
	for _, r := range heard {
		for _, fn := range s.news.tell {
			fn(r)
		}
	}
}

// news is what a node has heard from the log of credentials within the life of
// what it remembers of them. What it heard is counted, and a read bears the
// count of when it began: it is void if one of its ids was heard of later.
//
// Nothing is loaded at the start, as nothing is remembered from before it.
type news struct {
	life time.Duration // of what is remembered
	size int           // ids; beyond it, all that was read is void
	now  func() time.Time
	tell []func(Revocation)

	mu    sync.RWMutex
	count uint64          // of times that something was heard
	floor uint64          // reads that began before are void
	heard map[string]word // by id of a session, key or user
}

type word struct {
	count uint64
	at    time.Time
}

// mark returns what a read that begins now bears.
func (n *news) mark() uint64 {
	n.mu.RLock()
	defer n.mu.RUnlock()
	return n.count
}

// since returns the mark that a read must bear at least to hold for the
// credential of the user.
func (n *news) since(credential, user string) uint64 {
	n.mu.RLock()
	defer n.mu.RUnlock()
	return max(n.floor, n.heard[credential].count, n.heard[user].count)
}

func (n *news) note(heard []Revocation) {
	at := n.now()
	n.mu.Lock()
	defer n.mu.Unlock()
	n.count++
	for _, r := range heard {
		id := string(r.Session) + string(r.Key) + string(r.User) // one of them
		n.room(at)
		if id == "" {
			n.floor = n.count
			continue
		}
		n.heard[id] = word{n.count, at}
	}
}

// room keeps what was heard within bounds: words that have outlived what they
// were about are dropped, and if that is not enough, everything is void.
func (n *news) room(at time.Time) {
	if len(n.heard) < n.size {
		return
	}
	for id, w := range n.heard {
		if at.Sub(w.at) > n.life {
			delete(n.heard, id)
		}
	}
	if len(n.heard) > n.size/2 {
		clear(n.heard)
		n.floor = n.count
	}
}
