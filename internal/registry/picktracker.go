package registry

import (
	"cmp"
	"context"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"log/slog"
	"sync"
	"time"

	"github.com/backplane-dev/backplane/internal/auth"
	"github.com/backplane-dev/backplane/internal/dbclock"
	"github.com/backplane-dev/backplane/internal/fault"
)

// PickTrackerConfig tunes a PickTracker. The zero value is ready to use.
type PickTrackerConfig struct {
	TokenTTL          time.Duration // until a call without a report counts as lost; default 1 min
	MaxPicks          int           // picks in flight, beyond which the oldest are released; default 500,000
	MaxPicksPerCaller int           // of them of one caller, beyond which it gets no more; default 100,000
	SyncInterval      time.Duration // between two exchanges of calls in flight with other nodes; default 1 s
}

// PickTracker picks instances for callers and receives the outcomes of their calls.
//
// A pick comes with a pick token, with which only its caller can report, once. The token names
// the node that picked, which alone tracks the call; an outcome that is reported to another node
// gets there with the next exchange between nodes. So an outcome counts at most once, and a call
// that is not reported before its token expires is lost. Calls in flight of other nodes count
// after at most two exchanges: that is the exchange delay, two seconds. Without the database,
// nodes count their own calls only.
type PickTracker struct {
	directory *Directory
	chooser   Chooser
	peers     PeerStore // nil if there are no other nodes
	secret    []byte
	now       func() time.Time
	log       *slog.Logger
	cfg       PickTrackerConfig
	node      [8]byte

	mu              sync.Mutex
	pending         map[pickID]pendingPick
	pendingByCaller map[string]int       // pending picks of each caller that has any
	queue           []pickID             // of pending and ended picks, the oldest first
	spent           map[pickID]time.Time // tokens of other nodes that were used here, with their expiry
	unsent          []Outcome            // outcomes for other nodes
}

type pickID [8]byte

type pendingPick struct {
	choice  Choice
	caller  string
	expires time.Time
}

// NewPickTracker returns a PickTracker. The secret is the same on every node.
func NewPickTracker(d *Directory, c Chooser, x PeerStore, secret []byte, now func() time.Time, log *slog.Logger, cfg PickTrackerConfig) *PickTracker {
	cfg.TokenTTL, cfg.MaxPicks, cfg.SyncInterval = cmp.Or(cfg.TokenTTL, time.Minute), cmp.Or(cfg.MaxPicks, 500_000), cmp.Or(cfg.SyncInterval, time.Second)
	cfg.MaxPicksPerCaller = cmp.Or(cfg.MaxPicksPerCaller, 100_000)
	t := &PickTracker{
		directory: d, chooser: c, peers: x, secret: secret, now: now, log: log, cfg: cfg,
		pending: map[pickID]pendingPick{}, pendingByCaller: map[string]int{}, spent: map[pickID]time.Time{},
	}
	_, _ = rand.Read(t.node[:]) // documented never to fail
	return t
}

// Pick chooses an instance of the service for one call of the caller, by the
// service's strategy if none is given, and returns it with a pick token to report
// the outcome with. CONSISTENT_HASH needs a key. A caller with too many picks that it
// has not reported gets LIMIT_REACHED.
func (t *PickTracker) Pick(ctx context.Context, service string, strategy Strategy, key string) (*Instance, string, error) {
	caller, err := requirePicker(ctx)
	if err != nil {
		return nil, "", err
	}
	set := t.directory.Set(service)
	if set == nil {
		return nil, "", ServiceNotFound().At("service")
	}
	strategy = cmp.Or(strategy, set.Service.Strategy)
	switch {
	case strategy == ConsistentHash && key == "":
		return nil, "", fault.New(fault.BadInput, "CONSISTENT_HASH needs a key: it gives equal keys the same instance.").At("key")
	case len(key) > MaxPickKey:
		return nil, "", fault.New(fault.BadInput, "key must be at most %d bytes long.", MaxPickKey).At("key")
	}
	choice, err := t.chooser.Choose(set, strategy, key)
	if err != nil {
		return nil, "", err
	}
	token, err := t.issueToken(choice, caller)
	if err != nil {
		return nil, "", err
	}
	return choice.Instance(), token, nil
}

// MaxPickKey is how many bytes a key of CONSISTENT_HASH may have.
const MaxPickKey = 1024

// Report records how a call ended. The token must be one of the caller's, not
// expired and not used before; else it is PICK_LEASE_INVALID.
func (t *PickTracker) Report(ctx context.Context, token string, ok bool, took time.Duration) error {
	caller, err := requirePicker(ctx)
	if err != nil {
		return err
	}
	if took < 0 || took > time.Hour {
		return fault.New(fault.BadInput, "latencyMs is from 0 to %d.", time.Hour.Milliseconds()).At("latencyMs")
	}
	node, id, expires, valid := t.decodeToken(token, caller)
	if !valid || !dbclock.Live(expires, t.cfg.TokenTTL, t.now()) {
		return errInvalidToken()
	}
	if node != t.node {
		return t.queueOutcome(node, id, expires, ok, took)
	}
	choice := t.finishPick(id)
	if choice == nil {
		return errInvalidToken()
	}
	choice.Done(ok, took)
	return nil
}

// requirePicker returns the caller if it may pick instances.
func requirePicker(ctx context.Context) (*auth.Principal, error) {
	caller := auth.LastKnown(ctx)
	switch {
	case caller == nil:
		return nil, auth.NotSignedIn(ctx)
	case !caller.MayUseServices():
		return nil, fault.New(fault.Forbidden, "This needs the role SERVICE, STAFF or ADMIN, and of an API key the scope %s.", auth.ServicesRead)
	}
	return caller, nil
}

// issueToken tracks a pick and returns its token.
func (t *PickTracker) issueToken(choice Choice, caller *auth.Principal) (string, error) {
	var id pickID
	_, _ = rand.Read(id[:])
	expires := t.now().Add(t.cfg.TokenTTL).Truncate(time.Millisecond)
	over, full := t.addPick(id, pendingPick{choice, caller.Actor(), expires})
	for _, c := range over {
		c.Release() // not expired, so its outcome is unknown
	}
	if full {
		choice.Release()
		return "", fault.New(fault.LimitReached, "You have %d picks under way at this node; report how they ended.", t.cfg.MaxPicksPerCaller)
	}
	return t.encodeToken(id, expires, caller), nil
}

// addPick adds a pick, unless its caller has too many, and returns the oldest ones beyond
// MaxPicks.
func (t *PickTracker) addPick(id pickID, o pendingPick) (over []Choice, full bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.pendingByCaller[o.caller] >= t.cfg.MaxPicksPerCaller {
		return nil, true
	}
	t.pending[id] = o
	t.pendingByCaller[o.caller]++
	t.queue = append(t.queue, id)
	return t.removeExpired(time.Time{}), false
}

// removeExpired removes expired picks, unless now is zero, and the oldest beyond MaxPicks. The caller holds the
// lock and ends the returned picks after releasing it.
func (t *PickTracker) removeExpired(now time.Time) (over []Choice) {
	n := 0
	for _, id := range t.queue {
		o, ok := t.pending[id]
		if ok && (now.IsZero() || dbclock.Live(o.expires, t.cfg.TokenTTL, now)) && len(t.pending) <= t.cfg.MaxPicks {
			break
		}
		if n++; ok {
			over = append(over, t.removePick(id))
		}
	}
	t.queue = t.queue[n:]
	return over
}

// removePick removes a pending pick and returns it, nil if it is not pending. The caller holds the lock.
func (t *PickTracker) removePick(id pickID) Choice {
	o, ok := t.pending[id]
	if !ok {
		return nil
	}
	delete(t.pending, id)
	if t.pendingByCaller[o.caller]--; t.pendingByCaller[o.caller] == 0 {
		delete(t.pendingByCaller, o.caller)
	}
	return o.choice
}

func (t *PickTracker) finishPick(id pickID) Choice {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.removePick(id)
}

// maxQueued bounds the outcomes that wait for the next exchange, and the remembered used
// tokens of other nodes.
const maxQueued = 100_000

// queueOutcome keeps an outcome for the node that picked.
func (t *PickTracker) queueOutcome(node [8]byte, id pickID, expires time.Time, ok bool, took time.Duration) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if _, again := t.spent[id]; again || t.peers == nil {
		return errInvalidToken()
	}
	if len(t.unsent) >= maxQueued || len(t.spent) >= maxQueued {
		return fault.New(fault.ServerBusy, "Too many outcomes wait for other nodes; try again in a second.")
	}
	t.spent[id] = expires
	t.unsent = append(t.unsent, Outcome{Pick: hex.EncodeToString(id[:]), Node: hex.EncodeToString(node[:]), OK: ok, Took: took})
	return nil
}

// Run expires picks and exchanges calls in flight with other nodes, until ctx is
// cancelled. A failed exchange is tried again.
func (t *PickTracker) Run(ctx context.Context) error {
	tick := time.NewTicker(t.cfg.SyncInterval)
	defer tick.Stop()
	failed := 0
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		t.expirePicks()
		if t.peers == nil {
			continue
		}
		switch err := t.syncPeers(ctx); {
		case err == nil:
			failed = 0
		case ctx.Err() == nil:
			if failed++; failed == maxFailedSyncs {
				t.log.WarnContext(ctx, "the exchange of calls in flight with other nodes failed; this node counts its own only", "error", err)
				t.chooser.SetRemoteInflight(nil)
			}
		}
	}
}

// maxFailedSyncs is how many exchanges may fail in a row before the calls of other nodes
// count as ended.
const maxFailedSyncs = 5

func (t *PickTracker) expirePicks() {
	now := t.now()
	t.mu.Lock()
	over := t.removeExpired(now)
	for id, expires := range t.spent {
		if !dbclock.Live(expires, t.cfg.TokenTTL, now) {
			delete(t.spent, id)
		}
	}
	t.mu.Unlock()
	for _, c := range over {
		c.Lost()
	}
}

func (t *PickTracker) syncPeers(ctx context.Context) error {
	t.mu.Lock()
	out := t.unsent
	t.unsent = nil
	t.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, 5*t.cfg.SyncInterval)
	defer cancel()
	remote, in, err := t.peers.SyncPicks(ctx, hex.EncodeToString(t.node[:]), maxFailedSyncs*t.cfg.SyncInterval, t.chooser.Inflight(), out)
	if err != nil {
		t.mu.Lock()
		t.unsent = append(out, t.unsent...)
		t.mu.Unlock()
		return err
	}
	t.chooser.SetRemoteInflight(remote)
	for _, o := range in {
		var id pickID
		if n, err := hex.Decode(id[:], []byte(o.Pick)); err != nil || n != len(id) {
			continue
		}
		if choice := t.finishPick(id); choice != nil {
			choice.Done(o.OK, o.Took)
		}
	}
	return nil
}

// A pick token is the node, the id of the pick, its expiry, and a MAC over these and the
// caller, which is not in the token.
const (
	tokenBody    = 8 + 8 + 8
	tokenMACSize = 16 // of 32 bytes: 2^128 guesses are infeasible
)

func (t *PickTracker) encodeToken(id pickID, expires time.Time, caller *auth.Principal) string {
	b := make([]byte, 0, tokenBody+tokenMACSize)
	b = append(append(b, t.node[:]...), id[:]...)
	b = binary.BigEndian.AppendUint64(b, uint64(expires.UnixMilli()))
	return base64.RawURLEncoding.EncodeToString(append(b, t.tokenMAC(b, caller)...))
}

func (t *PickTracker) decodeToken(token string, caller *auth.Principal) (node [8]byte, id pickID, expires time.Time, ok bool) {
	b, err := base64.RawURLEncoding.Strict().DecodeString(token)
	if err != nil || len(b) != tokenBody+tokenMACSize || !hmac.Equal(b[tokenBody:], t.tokenMAC(b[:tokenBody], caller)) {
		return node, id, expires, false
	}
	copy(node[:], b)
	copy(id[:], b[8:])
	return node, id, time.UnixMilli(int64(binary.BigEndian.Uint64(b[16:]))), true //nolint:gosec // as written
}

func (t *PickTracker) tokenMAC(body []byte, caller *auth.Principal) []byte {
	h := hmac.New(sha256.New, t.secret)
	h.Write(body)
	h.Write([]byte(caller.Actor()))
	return h.Sum(nil)[:tokenMACSize]
}

func errInvalidToken() error {
	return fault.New(CodePickLeaseInvalid, "This lease is not one of yours, was used, or has expired.").At("lease")
}
