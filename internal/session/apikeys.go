package session

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/backplane-dev/backplane/internal/auth"
	"github.com/backplane-dev/backplane/internal/claim"
	"github.com/backplane-dev/backplane/internal/fault"
	"github.com/backplane-dev/backplane/internal/uid"
	"github.com/backplane-dev/backplane/internal/validate"
)

// maxKeyName is the length of an API key's name, in characters.
const maxKeyName = 100

// CreateAPIKeyInput describes an API key.
type CreateAPIKeyInput struct {
	UserID    *uid.User // the user it acts as; nil for the caller. Only ADMIN makes keys for others
	Name      string    // 1 to 100 characters
	Scopes    []auth.Scope
	ExpiresAt *time.Time // at most 366 days from now; nil for 90 days
}

// CreateAPIKey makes an API key and returns its text, which cannot be read
// again. It needs a session, not an API key; only ADMIN grants elevated scopes.
// BAD_INPUT, SCOPE_INVALID, EXPIRY_INVALID for what the input says; SCOPE_INVALID also
// for a scope that the roles of its owner do not carry;
// USER_NOT_FOUND and USER_NOT_ACTIVE for its owner; LIMIT_REACHED if that has 50
// live keys.
func (s *Service) CreateAPIKey(ctx context.Context, in CreateAPIKeyInput) (*APIKey, string, error) {
	caller, err := auth.RequireSession(ctx)
	if err != nil {
		return nil, "", err
	}
	owner := caller.UserID
	if in.UserID != nil {
		owner = *in.UserID
	}
	if !mayManage(caller, owner) {
		return nil, "", fault.New(fault.Forbidden, "Only ADMIN may make API keys for others.").At("userId")
	}
	if i := slices.IndexFunc(in.Scopes, auth.Scope.Elevated); i >= 0 && !caller.Has(auth.Admin) {
		return nil, "", fault.New(fault.Forbidden, "Only ADMIN may grant the scope %.80s.", in.Scopes[i]).At("scopes")
	}
	return s.IssueAPIKey(ctx, owner, in)
}

// IssueAPIKey is CreateAPIKey for the operator and checks no permission: no
// transport offers it. The UserID of the input is not used.
func (s *Service) IssueAPIKey(ctx context.Context, owner uid.User, in CreateAPIKeyInput) (*APIKey, string, error) {
	if !owner.Valid() {
		return nil, "", errOwner()
	}
	at := s.now()
	k, text, err := newKey(owner, in, at)
	if err != nil {
		return nil, "", err
	}
	err = s.store.CreateKey(ctx, k, at, func(owner *Account, live int) error {
		switch {
		case !owner.Active:
			return fault.New(fault.UserNotActive, "This account may not act, and neither may a key for it.").At("userId")
		case !allCarriedBy(k.Scopes, owner.Roles):
			return fault.New(CodeScopeInvalid, "A key with an elevated scope belongs to an ADMIN; those for programs, %s and service:NAME, also to a SERVICE.",
				auth.LegacyWrite).At("scopes")
		case live >= maxLiveKeys:
			return fault.New(fault.LimitReached, "An account may have %d API keys; revoke one first.", maxLiveKeys)
		}
		return nil
	})
	if err != nil {
		return nil, "", err
	}
	return k, text, nil
}

func allCarriedBy(scopes []auth.Scope, roles []auth.Role) bool {
	return !slices.ContainsFunc(scopes, func(s auth.Scope) bool { return !s.CarriedBy(roles) })
}

// newKey returns a new key and its text, and records api_key.created.
func newKey(owner uid.User, in CreateAPIKeyInput, at time.Time) (*APIKey, string, error) {
	name, errName := validate.Line("name", in.Name, maxKeyName)
	scopes, errScopes := cleanScopes(in.Scopes)
	var errExpiry error
	expires := at.Add(defaultKeyLife)
	if in.ExpiresAt != nil {
		expires = in.ExpiresAt.UTC().Truncate(precision)
	}
	if !expires.After(at) || expires.After(at.Add(maxKeyLife)) {
		errExpiry = fault.New(CodeExpiryInvalid, "An API key must expire in the future, within 366 days.").At("expiresAt")
	}
	if err := errors.Join(errName, errScopes, errExpiry); err != nil {
		return nil, "", err
	}
	id := uid.NewAPIKey(at)
	text, hash := generateKey(id)
	k := &APIKey{
		ID: id, UserID: owner, Name: name, Scopes: scopes, Hash: hash,
		Version: 1, CreatedAt: at, UpdatedAt: at, ExpiresAt: expires,
	}
	k.recordEvent(EventAPIKeyCreated, at)
	return k, text, nil
}

// maxServiceScopes bounds the services that one key may manage.
const maxServiceScopes = 20

// cleanScopes returns the scopes in their order. At least one, each once.
func cleanScopes(scopes []auth.Scope) ([]auth.Scope, error) {
	var sorted []auth.Scope
	for _, s := range auth.Scopes() {
		if slices.Contains(scopes, s) {
			sorted = append(sorted, s)
		}
	}
	var services []auth.Scope
	for _, s := range scopes {
		if isServiceScope(s) {
			services = append(services, s)
		}
	}
	slices.Sort(services)
	sorted = append(sorted, slices.Compact(services)...)
	if len(sorted) == 0 || len(sorted) != len(scopes) || len(services) > maxServiceScopes {
		return nil, fault.New(CodeScopeInvalid, "Give at least one scope, each only once, out of %v and service:NAME for up to %d services.",
			auth.Scopes(), maxServiceScopes).At("scopes")
	}
	return sorted, nil
}

// isServiceScope reports whether the scope is for a service that may exist.
func isServiceScope(s auth.Scope) bool {
	name, ok := s.Service()
	return ok && validate.IsServiceName(name)
}

// RevokeAPIKey ends an API key of the caller, or as ADMIN of any user. It
// needs a session. On a revoked key it does nothing; one that is hidden from the caller
// is API_KEY_NOT_FOUND.
func (s *Service) RevokeAPIKey(ctx context.Context, cl claim.Claim, id uid.APIKey) (*APIKey, error) {
	caller, err := auth.RequireSession(ctx)
	if err != nil {
		return nil, err
	}
	if !id.Valid() {
		return nil, KeyNotFound()
	}
	at := s.now()
	k, err := s.store.UpdateKey(ctx, cl, id, func(k *APIKey) error {
		if !mayManage(caller, k.UserID) {
			return KeyNotFound()
		}
		k.Revoke(at)
		return nil
	})
	s.keyStates.invalidate(string(id)) // also if the outcome is not known
	// A duplicate call has not called the function above.
	if err == nil && !mayManage(caller, k.UserID) {
		err = KeyNotFound()
	}
	if err != nil {
		return nil, err
	}
	return k, nil
}

// APIKeys returns the API keys of a user, ended ones too, the newest first, at
// most 100. Only ADMIN gets those of others; other callers get none.
func (s *Service) APIKeys(ctx context.Context, user uid.User) ([]*APIKey, error) {
	caller, err := auth.Require(ctx, auth.UsersRead)
	if err != nil || !user.Valid() || !mayManage(caller, user) {
		return nil, err
	}
	return s.store.KeysOf(ctx, user, maxListed)
}

// APIKeysByIDs returns those of the API keys that exist and that the caller may
// see: its own, as ADMIN all.
func (s *Service) APIKeysByIDs(ctx context.Context, ids []uid.APIKey) (map[uid.APIKey]*APIKey, error) {
	caller := auth.From(ctx)
	ids = validIDs(ids)
	if !caller.May(auth.UsersRead) || len(ids) == 0 {
		return nil, nil
	}
	found, err := s.store.KeysByIDs(ctx, ids)
	if err != nil {
		return nil, err
	}
	for id, k := range found {
		if !mayManage(caller, k.UserID) {
			delete(found, id)
		}
	}
	return found, nil
}

func errOwner() *fault.Error {
	return fault.New(fault.UserNotFound, "There is no such user.").At("userId")
}
