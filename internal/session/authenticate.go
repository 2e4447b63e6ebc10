package session

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/backplane-dev/backplane/internal/auth"
	"github.com/backplane-dev/backplane/internal/fault"
	"github.com/backplane-dev/backplane/internal/uid"
)

// standing is what a request needs to know of its session or API key. It is
// shared, and nothing of it changes but when the key was used.
type standing struct {
	principal *auth.Principal
	good      bool // neither it nor its account has lost the right to act
	expiresAt time.Time
	hash      []byte // of an API key's secret
	used      *use   // of an API key
}

func (s *standing) live(at time.Time) bool { return s.good && at.Before(s.expiresAt) }

// trusted returns how what was read of a credential is judged by a request. As
// long as the log is followed it holds until the log says otherwise of the
// credential or its user, but not beyond an expiry that a refresh may have moved.
func (s *Service) trusted(id string) func(r *reading[*standing], age time.Duration) bool {
	if s.feed == nil {
		return func(_ *reading[*standing], age time.Duration) bool { return age < maxStanding }
	}
	if !s.follows() {
		return func(*reading[*standing], time.Duration) bool { return false }
	}
	return func(r *reading[*standing], age time.Duration) bool {
		st, ended := r.ended()
		switch {
		case age >= s.news.life:
			return false
		case !ended: // nobody knows yet whose it is
			return r.mark == s.news.mark()
		case st.good && age >= maxStanding && !s.now().Before(st.expiresAt):
			return false
		default:
			return r.mark >= s.news.since(id, string(st.principal.UserID))
		}
	}
}

// Authenticate returns who calls with the bearer token: an access token or an
// API key. Roles and revocations are those of a second ago or younger. The
// error is UNAUTHENTICATED for everything that is wrong with a token, without
// saying what, and UNAVAILABLE if that cannot be told without the database.
func (s *Service) Authenticate(ctx context.Context, bearer string) (*auth.Principal, error) {
	authenticate := s.byToken
	if strings.HasPrefix(bearer, keyPrefix) {
		authenticate = s.byKey
	}
	p, err := judged(ctx, func() (*auth.Principal, error) { return authenticate(ctx, bearer) })
	s.remember(bearer, p, err)
	return p, err
}

// judged returns what look returns, its errors as callers may see them.
func judged(ctx context.Context, look func() (*auth.Principal, error)) (*auth.Principal, error) {
	p, err := look()
	switch f, ok := errors.AsType[*fault.Error](err); {
	case err == nil:
		return p, nil
	case errors.Is(err, errToken) || ok && f.Kind == fault.NotFound:
		return nil, errBearer()
	case ok && f.Kind == fault.Unavailable || ctx.Err() != nil:
		return nil, err
	default:
		return nil, fault.New(fault.Unavailable, fault.ServiceUnavailable, "Credentials cannot be checked right now; try again in a moment.").Because(err)
	}
}

// Expiry returns when an access token ends that Authenticate has just taken;
// zero for API keys, and if it is not known any more.
func (s *Service) Expiry(bearer string) time.Time {
	return s.tokens.expiry(bearer)
}

func (s *Service) byToken(ctx context.Context, token string) (*auth.Principal, error) {
	p, err := s.tokens.verify(ctx, token)
	if err != nil {
		return nil, err
	}
	return s.liveSession(ctx, p.session, func(st *standing) bool { return st.principal.UserID == p.user })
}

// liveSession returns the principal of a session that is good and fits, else
// errToken.
func (s *Service) liveSession(ctx context.Context, id uid.Session, fits func(*standing) bool) (*auth.Principal, error) {
	st, err := s.sessions.get(ctx, id, s.trusted(string(id)), func(ctx context.Context) (*standing, error) { return s.readSession(ctx, id) })
	if err != nil {
		return nil, err
	}
	if !st.live(s.now()) || !fits(st) {
		return nil, errToken
	}
	return st.principal, nil
}

func (s *Service) byKey(ctx context.Context, text string) (*auth.Principal, error) {
	id, secret, ok := parseKey(text)
	if !ok {
		return nil, errToken
	}
	sum := sha256.Sum256([]byte(secret))
	return s.liveKey(ctx, id, func(st *standing) bool { return subtle.ConstantTimeCompare(sum[:], st.hash) == 1 })
}

// liveKey is liveSession for an API key, whose use it notes.
func (s *Service) liveKey(ctx context.Context, id uid.APIKey, fits func(*standing) bool) (*auth.Principal, error) {
	st, err := s.keys.get(ctx, id, s.trusted(string(id)), func(ctx context.Context) (*standing, error) { return s.readKey(ctx, id) })
	if err != nil {
		return nil, err
	}
	at := s.now()
	if !fits(st) || !st.live(at) {
		return nil, errToken
	}
	if st.used.again(at) {
		s.uses.note(id, at)
	}
	return st.principal, nil
}

func (s *Service) readSession(ctx context.Context, id uid.Session) (*standing, error) {
	x, acct, err := s.store.SessionStanding(ctx, id)
	if err != nil {
		return nil, err
	}
	p := &auth.Principal{UserID: acct.UserID, Roles: acct.Roles, Credential: auth.SessionCredential(x.ID)}
	return &standing{principal: p, good: acct.Active && x.RevokedAt == nil, expiresAt: x.ExpiresAt}, nil
}

func (s *Service) readKey(ctx context.Context, id uid.APIKey) (*standing, error) {
	k, acct, err := s.store.KeyStanding(ctx, id)
	if err != nil {
		return nil, err
	}
	p := &auth.Principal{UserID: acct.UserID, Roles: acct.Roles, Credential: auth.APIKeyCredential(k.ID, k.Scopes...)}
	st := &standing{principal: p, good: acct.Active && k.RevokedAt == nil, expiresAt: k.ExpiresAt, hash: k.Hash, used: &use{}}
	if k.LastUsedAt != nil {
		st.used.last.Store(k.LastUsedAt.UnixNano())
	}
	return st, nil
}

// use is when an API key was last used, as far as this node knows.
type use struct{ last atomic.Int64 } // Unix nanoseconds

// again reports whether a use now is to be noted, and takes it for noted then.
func (u *use) again(at time.Time) bool {
	last := u.last.Load()
	return at.Sub(time.Unix(0, last)) > UseInterval && u.last.CompareAndSwap(last, at.UnixNano())
}

func errBearer() error {
	return fault.New(fault.Unauthenticated, fault.Unauthorized, "The credential is not valid; sign in again, or use another API key.")
}

// uses collects which API keys were used, to be written down together. It is
// bounded: what does not fit is not noted, and the next use is.
type uses struct {
	limit int
	mu    sync.Mutex
	noted map[uid.APIKey]time.Time
}

func (u *uses) note(id uid.APIKey, at time.Time) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if _, again := u.noted[id]; again || len(u.noted) >= u.limit {
		return
	}
	if u.noted == nil {
		u.noted = map[uid.APIKey]time.Time{}
	}
	u.noted[id] = at
}

func (u *uses) take() map[uid.APIKey]time.Time {
	u.mu.Lock()
	defer u.mu.Unlock()
	noted := u.noted
	u.noted = nil
	return noted
}

// writeUses writes down the uses noted since the last time, or keeps them for
// the next.
func (s *Service) writeUses(ctx context.Context) error {
	noted := s.uses.take()
	if len(noted) == 0 {
		return nil
	}
	err := s.store.TouchKeys(ctx, noted)
	if err != nil {
		for id, at := range noted {
			s.uses.note(id, at)
		}
	}
	return err
}
