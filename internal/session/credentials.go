package session

import (
	"context"
	"encoding/json"
	"time"

	"github.com/backplane-dev/backplane/internal/claim"
	"github.com/backplane-dev/backplane/internal/event"
	"github.com/backplane-dev/backplane/internal/fault"
	"github.com/backplane-dev/backplane/internal/security"
	"github.com/backplane-dev/backplane/internal/uid"
)

// Credentials is all live credentials of a user, as one unit of change.
type Credentials struct {
	Account
	Sessions []*Session // neither revoked nor expired, by id
	Keys     []*APIKey  // likewise
	Security []security.Event
}

// TakeEvents returns the events recorded since the last call.
func (a *Credentials) TakeEvents() []event.Event {
	var all []event.Event
	for _, s := range a.Sessions {
		all = append(all, s.TakeEvents()...)
	}
	for _, k := range a.Keys {
		all = append(all, k.TakeEvents()...)
	}
	return all
}

// ending says which credentials of a user end: its sessions but one, and if keys its API keys.
type ending struct {
	why    Reason
	except uid.Session // empty for none
	keys   bool
}

// revoke ends the credentials and returns the ids of the sessions and keys.
func (e *ending) revoke(a *Credentials, at time.Time) (sessions []uid.Session, keys []uid.APIKey) {
	for _, x := range a.Sessions {
		if x.ID != e.except {
			x.Revoke(e.why, at)
			sessions = append(sessions, x.ID)
		}
	}
	for _, k := range a.Keys {
		if e.keys {
			k.Revoke(at)
			keys = append(keys, k.ID)
		}
	}
	return sessions, keys
}

// endCredentials ends credentials of the user in one transaction with the change, which may
// refuse it, and returns how many it ended.
func (s *Service) endCredentials(ctx context.Context, cl claim.Claim, user uid.User, e *ending, change func(*Credentials) error) (int, error) {
	at := s.now()
	var sessions []uid.Session
	var keys []uid.APIKey
	err := s.store.UpdateCredentials(ctx, cl, user, at, func(a *Credentials) error {
		if err := change(a); err != nil {
			return err
		}
		sessions, keys = e.revoke(a, at)
		return nil
	})
	for _, id := range sessions { // also if the outcome is not known
		s.sessionStates.invalidate(string(id))
	}
	for _, id := range keys {
		s.keyStates.invalidate(string(id))
	}
	if err != nil {
		return 0, err
	}
	return len(sessions) + len(keys), nil
}

// CredentialEventTypes returns the types of events that EndAccess is for.
func CredentialEventTypes() []event.Type { return []event.Type{event.UserUpdated, event.UserDeleted} }

// RevokeCredentials is a consumer.Handler: when an account was deactivated or deleted
// it revokes the sessions and keys that it had at that moment, so that they stay
// revoked if the account becomes active again. Authenticate refuses them before
// that, by the state of the account itself.
func (s *Service) RevokeCredentials(ctx context.Context, d claim.Delivery, e *event.Event) error {
	if !endsCredentials(e) {
		return nil
	}
	at := s.now()
	err := s.store.UpdateCredentials(ctx, d, uid.User(e.SubjectID), at, func(a *Credentials) error {
		for _, x := range a.Sessions {
			if !x.CreatedAt.After(e.OccurredAt) {
				x.Revoke(AccountEnded, at)
			}
		}
		for _, k := range a.Keys {
			if !k.CreatedAt.After(e.OccurredAt) {
				k.Revoke(at)
			}
		}
		return nil
	})
	if fault.Is(err, fault.UserNotFound) {
		return nil
	}
	return err
}

func endsCredentials(e *event.Event) bool {
	if e.Type == event.UserDeleted {
		return true
	}
	var account struct {
		Status string `json:"status"`
	}
	return e.Type == event.UserUpdated && json.Unmarshal(e.Data, &account) == nil && account.Status == "DEACTIVATED"
}
