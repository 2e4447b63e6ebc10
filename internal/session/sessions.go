package session

import (
	"context"

	"github.com/backplane-dev/backplane/internal/auth"
	"github.com/backplane-dev/backplane/internal/claim"
	"github.com/backplane-dev/backplane/internal/uid"
)

// SignOut ends the caller's own session. It needs a session, not an API key.
func (s *Service) SignOut(ctx context.Context, cl claim.Claim) error {
	caller, err := auth.RequireSession(ctx)
	if err != nil {
		return err
	}
	_, err = s.revokeSession(ctx, cl, caller, caller.SessionID(), SignedOut)
	return err
}

// Revoke ends a session of the caller, or as ADMIN of any user. On a session that
// has ended it does nothing; one that is hidden from the caller is
// SESSION_NOT_FOUND.
func (s *Service) Revoke(ctx context.Context, cl claim.Claim, id uid.Session) (*Session, error) {
	caller, err := auth.RequireSession(ctx)
	if err != nil {
		return nil, err
	}
	return s.revokeSession(ctx, cl, caller, id, Revoked)
}

func (s *Service) revokeSession(ctx context.Context, cl claim.Claim, caller *auth.Principal, id uid.Session, why Reason) (*Session, error) {
	if !id.Valid() {
		return nil, NotFound()
	}
	at := s.now()
	x, err := s.store.UpdateSession(ctx, cl, id, func(x *Session) error {
		if !mayManage(caller, x.UserID) {
			return NotFound()
		}
		x.Revoke(why, at)
		return nil
	})
	s.sessionStates.invalidate(string(id)) // also if the outcome is not known
	// A duplicate call has not called the function above.
	if err == nil && !mayManage(caller, x.UserID) {
		err = NotFound()
	}
	if err != nil {
		return nil, err
	}
	x.Current = x.ID == caller.SessionID()
	return x, nil
}

// RevokeAll ends all sessions of the caller, or all but the one that calls, and if
// revokeKeys its API keys. It returns how many sessions and keys it ended.
func (s *Service) RevokeAll(ctx context.Context, cl claim.Claim, exceptCurrent, revokeKeys bool) (int, error) {
	caller, err := auth.RequireSession(ctx)
	if err != nil {
		return 0, err
	}
	e := &ending{why: Revoked, keys: revokeKeys}
	if exceptCurrent {
		e.except = caller.SessionID()
	}
	return s.endCredentials(ctx, cl, caller.UserID, e, func(*Credentials) error { return nil })
}

// Sessions returns the live sessions of a user, the one used last first, at most
// 100. Only ADMIN gets those of others; other callers get none.
func (s *Service) Sessions(ctx context.Context, user uid.User) ([]*Session, error) {
	caller, err := auth.Require(ctx, auth.UsersRead)
	if err != nil || !user.Valid() || !mayManage(caller, user) {
		return nil, err
	}
	found, err := s.store.LiveSessions(ctx, user, s.now(), maxListed)
	if err != nil {
		return nil, err
	}
	for _, x := range found {
		x.Current = x.ID == caller.SessionID()
	}
	return found, nil
}

// SessionsByIDs returns those of the sessions that exist and that the caller may
// see: its own, as ADMIN all, also ended ones.
func (s *Service) SessionsByIDs(ctx context.Context, ids []uid.Session) (map[uid.Session]*Session, error) {
	caller := auth.From(ctx)
	ids = validIDs(ids)
	if !caller.May(auth.UsersRead) || len(ids) == 0 {
		return nil, nil
	}
	found, err := s.store.SessionsByIDs(ctx, ids)
	if err != nil {
		return nil, err
	}
	for id, x := range found {
		if !mayManage(caller, x.UserID) {
			delete(found, id)
		}
		x.Current = x.ID == caller.SessionID()
	}
	return found, nil
}

// validIDs returns the ids that may exist.
func validIDs[ID interface{ Valid() bool }](ids []ID) []ID {
	var valid []ID
	for _, id := range ids {
		if id.Valid() {
			valid = append(valid, id)
		}
	}
	return valid
}
