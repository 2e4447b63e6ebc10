package session

import (
	"context"
	"encoding/json"

	"github.com/backplane-dev/backplane/internal/claim"
	"github.com/backplane-dev/backplane/internal/event"
	"github.com/backplane-dev/backplane/internal/fault"
	"github.com/backplane-dev/backplane/internal/uid"
)

// Credentials is all live credentials of a user, as one unit of change.
type Credentials struct {
	Sessions []*Session // neither revoked nor expired, by id
	Keys     []*APIKey  // likewise
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
