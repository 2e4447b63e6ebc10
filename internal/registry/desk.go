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
	"github.com/backplane-dev/backplane/internal/fault"
)

// DeskConfig tunes a Desk. The zero value is ready to use.
type DeskConfig struct {
	Lease time.Duration // until a call that nobody reported counts as over; default 1 min
	Open  int           // picks under way, beyond which the oldest count as over; default 500,000
	Each  int           // of them of one caller, beyond which it gets no more; default 100,000
	Trade time.Duration // how often nodes tell one another of their calls; default 1 s
}

// Desk picks instances for callers and takes their outcomes.
//
// A pick comes with a lease: text that only its picker can report with, once. It
// names the node that picked, which alone knows what is under way; an outcome that
// is reported to another node gets there with the next trade between nodes. So an outcome
// counts once at most, and a call that nobody reports within its lease is lost. The calls of other nodes are counted in after two trades
// at most: that is the exchange delay, two seconds. Without the database, nodes
// count their own calls only.
type Desk struct {
	directory *Directory
	chooser   Chooser
	exchange  Exchange // nil if there are no other nodes
	secret    []byte
	now       func() time.Time
	log       *slog.Logger
	cfg       DeskConfig
	node      [8]byte

	mu    sync.Mutex
	open  map[pickID]opened
	each  map[string]int       // how many of them a caller has; who has none is not in it
	queue []pickID             // of open and ended picks, the oldest first
	used  map[pickID]time.Time // leases of other nodes that were used here, until when they hold
	out   []Outcome            // for other nodes
}

type pickID [8]byte

type opened struct {
	choice  Choice
	caller  string
	expires time.Time
}

// NewDesk returns a Desk. The secret is the same on every node.
func NewDesk(d *Directory, c Chooser, x Exchange, secret []byte, now func() time.Time, log *slog.Logger, cfg DeskConfig) *Desk {
	cfg.Lease, cfg.Open, cfg.Trade = cmp.Or(cfg.Lease, time.Minute), cmp.Or(cfg.Open, 500_000), cmp.Or(cfg.Trade, time.Second)
	cfg.Each = cmp.Or(cfg.Each, 100_000)
	k := &Desk{
		directory: d, chooser: c, exchange: x, secret: secret, now: now, log: log, cfg: cfg,
		open: map[pickID]opened{}, each: map[string]int{}, used: map[pickID]time.Time{},
	}
	_, _ = rand.Read(k.node[:]) // documented never to fail
	return k
}

// Pick chooses an instance of the service for one call of the caller, by the
// service's strategy if none is given, and returns it with a lease to report the
// outcome with. CONSISTENT_HASH needs a key. A caller with too many picks that it
// has not reported gets LIMIT_REACHED.
func (k *Desk) Pick(ctx context.Context, service string, strategy Strategy, key string) (*Instance, string, error) {
	caller, err := user(ctx)
	if err != nil {
		return nil, "", err
	}
	set := k.directory.Set(service)
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
	choice, err := k.chooser.Choose(set, strategy, key)
	if err != nil {
		return nil, "", err
	}
	lease, err := k.lend(choice, caller)
	if err != nil {
		return nil, "", err
	}
	return choice.Instance(), lease, nil
}

// MaxPickKey is how many bytes a key of CONSISTENT_HASH may have.
const MaxPickKey = 1024

// Report says how a call ended. The lease must be one of the caller's, not
// expired and not used before; else it is PICK_LEASE_INVALID.
func (k *Desk) Report(ctx context.Context, lease string, ok bool, took time.Duration) error {
	caller, err := user(ctx)
	if err != nil {
		return err
	}
	if took < 0 || took > time.Hour {
		return fault.New(fault.BadInput, "latencyMs is from 0 to %d.", time.Hour.Milliseconds()).At("latencyMs")
	}
	node, id, expires, valid := k.read(lease, caller)
	if now := k.now(); !valid || !now.Before(expires) {
		return errLease()
	}
	if node != k.node {
		return k.forward(node, id, expires, ok, took)
	}
	choice := k.end(id)
	if choice == nil {
		return errLease()
	}
	choice.Done(ok, took)
	return nil
}

// user returns who is calling if it may pick instances.
func user(ctx context.Context) (*auth.Principal, error) {
	caller := auth.LastKnown(ctx)
	switch {
	case caller == nil:
		return nil, auth.NotSignedIn(ctx)
	case !caller.MayUseServices():
		return nil, fault.New(fault.Forbidden, "This needs the role SERVICE, STAFF or ADMIN, and of an API key the scope %s.", auth.ServicesRead)
	}
	return caller, nil
}

// lend notes a pick and returns its lease.
func (k *Desk) lend(choice Choice, caller *auth.Principal) (string, error) {
	var id pickID
	_, _ = rand.Read(id[:])
	expires := k.now().Add(k.cfg.Lease).Truncate(time.Millisecond)
	over, full := k.note(id, opened{choice, caller.Actor(), expires})
	for _, c := range over {
		c.Release() // in time, so nothing is known of it
	}
	if full {
		choice.Release()
		return "", fault.New(fault.LimitReached, "You have %d picks under way at this node; report how they ended.", k.cfg.Each)
	}
	return k.write(id, expires, caller), nil
}

// note keeps a pick, unless its caller has too many; and returns the oldest if
// there are too many of all.
func (k *Desk) note(id pickID, o opened) (over []Choice, full bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.each[o.caller] >= k.cfg.Each {
		return nil, true
	}
	k.open[id] = o
	k.each[o.caller]++
	k.queue = append(k.queue, id)
	return k.overdue(time.Time{}), false
}

// overdue takes out picks whose time is over, and the oldest of too many. The
// caller holds the lock and ends what is returned after it.
func (k *Desk) overdue(now time.Time) (over []Choice) {
	n := 0
	for _, id := range k.queue {
		o, ok := k.open[id]
		if ok && now.Before(o.expires) && len(k.open) <= k.cfg.Open {
			break
		}
		if n++; ok {
			over = append(over, k.takeOut(id))
		}
	}
	k.queue = k.queue[n:]
	return over
}

// takeOut ends a pick that is under way, nil if it is not. The caller holds the lock.
func (k *Desk) takeOut(id pickID) Choice {
	o, ok := k.open[id]
	if !ok {
		return nil
	}
	delete(k.open, id)
	if k.each[o.caller]--; k.each[o.caller] == 0 {
		delete(k.each, o.caller)
	}
	return o.choice
}

func (k *Desk) end(id pickID) Choice {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.takeOut(id)
}

// maxOut bounds the outcomes that wait for the next trade, and the leases of
// other nodes that are remembered as used.
const maxOut = 100_000

// forward keeps an outcome for the node that picked.
func (k *Desk) forward(node [8]byte, id pickID, expires time.Time, ok bool, took time.Duration) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if _, again := k.used[id]; again || k.exchange == nil {
		return errLease()
	}
	if len(k.out) >= maxOut || len(k.used) >= maxOut {
		return fault.New(fault.ServerBusy, "Too many outcomes wait for other nodes; try again in a second.")
	}
	k.used[id] = expires
	k.out = append(k.out, Outcome{Pick: hex.EncodeToString(id[:]), Node: hex.EncodeToString(node[:]), OK: ok, Took: took})
	return nil
}

// Run ends picks whose time is over, and trades with other nodes, until ctx is
// cancelled. A trade that fails is tried again.
func (k *Desk) Run(ctx context.Context) error {
	tick := time.NewTicker(k.cfg.Trade)
	defer tick.Stop()
	failed := 0
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		k.tidy()
		if k.exchange == nil {
			continue
		}
		switch err := k.trade(ctx); {
		case err == nil:
			failed = 0
		case ctx.Err() == nil:
			if failed++; failed == forgetAfter {
				k.log.WarnContext(ctx, "nodes do not hear of one another's calls; each counts its own", "error", err)
				k.chooser.SetElsewhere(nil)
			}
		}
	}
}

// forgetAfter is how many trades may fail before what other nodes last said
// counts as over.
const forgetAfter = 5

func (k *Desk) tidy() {
	now := k.now()
	k.mu.Lock()
	over := k.overdue(now)
	for id, expires := range k.used {
		if !now.Before(expires) {
			delete(k.used, id)
		}
	}
	k.mu.Unlock()
	for _, c := range over {
		c.Lost()
	}
}

func (k *Desk) trade(ctx context.Context) error {
	k.mu.Lock()
	out := k.out
	k.out = nil
	k.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, 5*k.cfg.Trade)
	defer cancel()
	elsewhere, in, err := k.exchange.Trade(ctx, hex.EncodeToString(k.node[:]), forgetAfter*k.cfg.Trade, k.chooser.Inflight(), out)
	if err != nil {
		k.mu.Lock()
		k.out = append(out, k.out...)
		k.mu.Unlock()
		return err
	}
	k.chooser.SetElsewhere(elsewhere)
	for _, o := range in {
		var id pickID
		if n, err := hex.Decode(id[:], []byte(o.Pick)); err != nil || n != len(id) {
			continue
		}
		if choice := k.end(id); choice != nil {
			choice.Done(o.OK, o.Took)
		}
	}
	return nil
}

// A lease is the node and the id of the pick, when it expires, and a code that
// only nodes can make: over these and the picker, who is not in the text.
const (
	leaseBody = 8 + 8 + 8
	leaseCode = 16 // of 32 bytes: nobody can try 2^128
)

func (k *Desk) write(id pickID, expires time.Time, caller *auth.Principal) string {
	b := make([]byte, 0, leaseBody+leaseCode)
	b = append(append(b, k.node[:]...), id[:]...)
	b = binary.BigEndian.AppendUint64(b, uint64(expires.UnixMilli()))
	return base64.RawURLEncoding.EncodeToString(append(b, k.code(b, caller)...))
}

func (k *Desk) read(lease string, caller *auth.Principal) (node [8]byte, id pickID, expires time.Time, ok bool) {
	b, err := base64.RawURLEncoding.Strict().DecodeString(lease)
	if err != nil || len(b) != leaseBody+leaseCode || !hmac.Equal(b[leaseBody:], k.code(b[:leaseBody], caller)) {
		return node, id, expires, false
	}
	copy(node[:], b)
	copy(id[:], b[8:])
	return node, id, time.UnixMilli(int64(binary.BigEndian.Uint64(b[16:]))), true //nolint:gosec // as written
}

func (k *Desk) code(body []byte, caller *auth.Principal) []byte {
	h := hmac.New(sha256.New, k.secret)
	h.Write(body)
	h.Write([]byte(caller.Actor()))
	return h.Sum(nil)[:leaseCode]
}

func errLease() error {
	return fault.New(fault.PickLeaseInvalid, "This lease is not one of yours, was used, or has expired.").At("lease")
}
