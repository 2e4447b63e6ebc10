package user

import (
	"context"
	"testing"
	"time"

	"github.com/backplane-dev/backplane/internal/auth"
	"github.com/backplane-dev/backplane/internal/claim"
	"github.com/backplane-dev/backplane/internal/fault"
	"github.com/backplane-dev/backplane/internal/uid"
	"github.com/backplane-dev/backplane/internal/validate"
)

// oneUser is a Store of one account, which is changed by every call.
type oneUser struct {
	Store

	user *User
}

func (s oneUser) Create(_ context.Context, _ claim.Claim, u *User, _ PasswordHash) (*User, error) {
	return u, nil
}

func (s oneUser) Update(_ context.Context, _ claim.Claim, _ uid.User, fn func(*User) error) (*User, error) {
	return s.user, fn(s.user)
}

func (s oneUser) UpdateCountingAdmins(_ context.Context, _ claim.Claim, _ uid.User, fn func(*User, int) error) (*User, error) {
	return s.user, fn(s.user, 1)
}

// administer are what only callers that administer users may do with an account.
var administer = map[string]func(ctx context.Context, s *Service, id uid.User) error{
	"creating STAFF": func(ctx context.Context, s *Service, _ uid.User) error {
		_, err := s.Create(ctx, claim.None, Profile{Username: "eve"}, []auth.Role{auth.Staff}, nil, nil)
		return err
	},
	"setting roles": func(ctx context.Context, s *Service, id uid.User) error {
		_, err := s.Update(ctx, claim.None, id, nil, Change{Roles: validate.Of([]auth.Role{auth.Admin})})
		return err
	},
	"deactivating": func(ctx context.Context, s *Service, id uid.User) error {
		_, err := s.Update(ctx, claim.None, id, nil, Change{Status: validate.Of(Deactivated)})
		return err
	},
	"deleting": func(ctx context.Context, s *Service, id uid.User) error {
		_, err := s.Delete(ctx, claim.None, id, nil)
		return err
	},
}

func TestService_lets_sessions_of_ADMIN_and_elevated_keys_alone_administer_users(t *testing.T) {
	t.Parallel()
	mine := uid.NewUser(at)
	key := func(scopes ...auth.Scope) auth.Credential { return auth.APIKeyCredential("key_1", scopes...) }
	session := auth.SessionCredential("ses_1")
	for _, tt := range []struct {
		name       string
		role       auth.Role
		credential auth.Credential
		may        bool
	}{
		{"a session of ADMIN", auth.Admin, session, true},
		{"a key of ADMIN with users:admin", auth.Admin, key(auth.UsersWrite, auth.UsersAdmin), true},
		{"a key of ADMIN with users:write alone", auth.Admin, key(auth.UsersWrite), false},
		{"a key of ADMIN with every other scope", auth.Admin, key(auth.UsersRead, auth.UsersWrite, auth.ProductsWrite, auth.OrdersRead, auth.OrdersWrite, auth.ServicesRead, auth.LegacyWrite), false},
		{"a key of ADMIN with users:admin alone", auth.Admin, key(auth.UsersAdmin), false},
		{"a key of a former ADMIN", auth.Staff, key(auth.UsersWrite, auth.UsersAdmin), false},
		{"a session of STAFF", auth.Staff, session, false},
	} {
		for what, do := range administer {
			for target, id := range map[string]uid.User{"its own account": mine, "another account": uid.NewUser(at)} {
				s := NewService(oneUser{user: newUser(t, auth.Customer)}, nil, func() time.Time { return at })
				ctx := auth.With(t.Context(), &auth.Principal{UserID: mine, Roles: []auth.Role{tt.role}, Credential: tt.credential})
				may := tt.may || what == "deleting" && id == mine && tt.credential.Unscoped()
				if err := do(ctx, s, id); may && err != nil || !may && !fault.Is(err, fault.Forbidden) {
					t.Errorf("%s by %s of %s gives %v, want it allowed: %v", what, tt.name, target, err, may)
				}
			}
		}
	}
}
