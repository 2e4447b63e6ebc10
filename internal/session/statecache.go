package session

import (
	"context"
	"time"

	"github.com/backplane-dev/backplane/internal/auth"
)

// maxStateAge is how old the state of a credential may be for a request.
const maxStateAge = time.Second

// credentialState is what a request needs to know of its session or API key. It
// is shared, and nothing of it changes but when the key was last used.
type credentialState struct {
	principal *auth.Principal
	active    bool // neither it nor its account has lost the right to act
	expiresAt time.Time
	hash      []byte   // of an API key's secret
	lastUse   *lastUse // of an API key
}

// readState reads the state of a credential from the database.
type readState func(ctx context.Context, id string) (*credentialState, error)

// stateCache caches the states of credentials of one kind.
type stateCache struct {
	reads       *readCache[string, *credentialState]
	revocations *revocationLog
	read        readState
	now         func() time.Time
}

// live returns the state of a credential that matches and is live, else
// an invalidCredential. It calls matches even if the credential is not live, so that
// the time it takes does not reveal that.
func (c *stateCache) live(ctx context.Context, id string, matches func(*credentialState) bool) (*credentialState, error) {
	current, err := c.revocations.awaitCurrent(ctx)
	if err != nil {
		return nil, err
	}
	st, err := c.reads.get(ctx, id, c.revocations.trust(id, current), func(ctx context.Context) (*credentialState, error) { return c.read(ctx, id) })
	if err != nil {
		return nil, err
	}
	matching, at := matches(st), c.now()
	switch {
	case !matching:
		return nil, &invalidCredential{detail: credentialUnknown}
	case !st.active:
		return nil, &invalidCredential{detail: credentialRevoked, principal: st.principal}
	case !at.Before(st.expiresAt):
		return nil, &invalidCredential{detail: credentialExpired, principal: st.principal}
	}
	return st, nil
}

// cached returns the state that the last read found, however old it is.
func (c *stateCache) cached(id string) (*credentialState, bool) { return c.reads.cached(id) }

// invalidate makes the next request read the state again.
func (c *stateCache) invalidate(id string) { c.reads.invalidate(id) }

func anyState(*credentialState) bool { return true }
