package client

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"
)

// Registration describes an instance of a service. Service, Instance and URL must
// be given.
type Registration struct {
	Service  string            // its name; it must be defined, see Client.DefineService
	Instance string            // its id, e.g. till-1: the same after a restart, and no other process's
	URL      string            // where it is called: http or https, a host, perhaps a path
	Weight   int               // its share of the calls; default 1
	Metadata map[string]string // shown to callers
	TTL      time.Duration     // how long it counts as alive without a heartbeat, 2 s to 10 min; default 30 s
	Inflight func() int        // returns its calls in flight, sent with each heartbeat; may be nil
	Drain    time.Duration     // how long Close waits for callers to see that it drains; default 1 s, negative for not at all
}

// InstanceStatus says whether an instance may be called.
type InstanceStatus string

// The statuses.
const (
	Passing     InstanceStatus = "PASSING"
	Critical    InstanceStatus = "CRITICAL"    // late with its heartbeats, or failing its checks
	Draining    InstanceStatus = "DRAINING"    // gets no new calls
	Maintenance InstanceStatus = "MAINTENANCE" // taken out of use by an operator
)

// Registered is an instance that is kept registered. It ends with Close, or when
// the registry says that it must.
type Registered struct {
	client         *Client
	reg            Registration
	log            *slog.Logger
	cancel         context.CancelFunc
	heartbeatsDone chan struct{} // closed once no heartbeat is sent any more
	done           chan struct{} // closed once it has ended

	closing sync.Once
	closed  error // what Close returns

	mu          sync.Mutex
	status      InstanceStatus
	incarnation int64
	seen        time.Time // when the registry last accepted a heartbeat
	trouble     error     // why the last heartbeat failed; nil if it did not
	end         error     // why it ended for good; nil while it has not
	drained     *string   // the reason, once it drains
}

// firstPause is how long after a failure the next heartbeat comes at first.
const firstPause = 200 * time.Millisecond

// Register registers the instance and keeps it registered: it sends heartbeats
// about three times within the time to live, registers again what was late or removed
// meanwhile, and goes on when the registry was away.
//
// It returns once the instance is registered for the first time. While the
// registry cannot be reached it tries until ctx is over; call it in a goroutine to serve
// meanwhile. What the registry refuses is returned at once, as an *Error. Ctx counts for this
// first time only; Close ends what Register began.
//
// Of two processes that claim one id, the one that registered last stays. The other
// gets STALE_INCARNATION, the fencing error, and stops for good.
func (c *Client) Register(ctx context.Context, reg Registration) (*Registered, error) {
	reg.Weight, reg.TTL, reg.Drain = cmp.Or(reg.Weight, 1), cmp.Or(reg.TTL, 30*time.Second), cmp.Or(reg.Drain, time.Second)
	if reg.Service == "" || reg.Instance == "" || reg.URL == "" || reg.TTL < 0 {
		return nil, errors.New("register: Service, Instance and URL must be given, and no negative TTL")
	}
	r := &Registered{
		client: c, reg: reg, heartbeatsDone: make(chan struct{}), done: make(chan struct{}),
		log:         c.cfg.Logger.With("service", reg.Service, "instance", reg.Instance),
		incarnation: time.Now().UnixMicro(), // finer than what the registry counts by itself, and so later
	}
	pauses := r.newBackoff()
	for {
		err := r.registerFirst(ctx)
		switch {
		case err == nil:
			life, cancel := context.WithCancel(context.WithoutCancel(ctx))
			r.cancel = cancel
			r.log.InfoContext(ctx, "registered", "incarnation", r.incarnation)
			go r.sendHeartbeats(life)
			return r, nil
		case ctx.Err() != nil:
			return nil, fmt.Errorf("register %s of %s: %w", reg.Instance, reg.Service, contextError(ctx, cmp.Or(r.State().Trouble, err)))
		case !isTemporary(err):
			return nil, fmt.Errorf("register %s of %s: %w", reg.Instance, reg.Service, err)
		}
		r.recordHeartbeat(ctx, err)
		sleep(ctx, pauses.next())
	}
}

// newBackoff returns the pauses between tries while the registry is away. The longest is no
// longer than that between two heartbeats, so that an instance is back in time.
func (r *Registered) newBackoff() backoff {
	return backoff{first: firstPause, most: min(10*time.Second, r.reg.TTL/3)}
}

// registerFirst registers the start that this is. If this machine's clock is behind that of
// the one where the instance ran before, its number is not new enough; then the
// registry counts.
func (r *Registered) registerFirst(ctx context.Context) error {
	err := r.register(ctx, r.incarnation)
	if Code(err) == CodeStaleIncarnation {
		err = r.register(ctx, 0)
	}
	return err
}

// instance is what the registry says of the instance.
type instance struct {
	Status      InstanceStatus `json:"status"`
	Incarnation int64          `json:"incarnation"`
}

var registerInstance = operation{"registerInstance", `mutation($in: RegisterInstanceInput!) { registerInstance(input: $in) {
	instance { status incarnation } userErrors { code message path } } }`}

// register registers the instance. With an incarnation it may be repeated: it is
// the same start again.
func (r *Registered) register(ctx context.Context, incarnation int64) error {
	in := r.ids(incarnation)
	in["url"], in["weight"], in["metadata"], in["ttl"] = r.reg.URL, r.reg.Weight, notNil(r.reg.Metadata), r.reg.TTL.String()
	return r.updateInstance(ctx, registerInstance, in)
}

// updateInstance calls a mutation of the instance, and records the state that it returns.
func (r *Registered) updateInstance(ctx context.Context, op operation, in map[string]any) error {
	var out struct {
		Instance instance `json:"instance"`
	}
	if err := r.client.mutate(ctx, op, in, &out); err != nil {
		return err
	}
	r.recordState(out.Instance)
	return nil
}

// ids is the input that names the instance and this start of it.
func (r *Registered) ids(incarnation int64) map[string]any {
	in := map[string]any{"service": r.reg.Service, "instanceId": r.reg.Instance}
	if incarnation != 0 {
		in["incarnation"] = incarnation
	}
	return in
}

func (r *Registered) recordState(i instance) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.status, r.incarnation, r.seen = i.Status, i.Incarnation, time.Now()
}

// State is how an instance stands with the registry.
type State struct {
	Status      InstanceStatus // as the registry last answered
	Incarnation int64          // which start of the instance this is
	Seen        time.Time      // when the registry last accepted a heartbeat
	Trouble     error          // why the last heartbeat failed; nil if it did not
}

// State returns how the instance stands with the registry.
func (r *Registered) State() State {
	r.mu.Lock()
	defer r.mu.Unlock()
	return State{r.status, r.incarnation, r.seen, r.trouble}
}

// Done is closed once the instance is not kept registered any more, and after Close once
// that is done; Err says why.
func (r *Registered) Done() <-chan struct{} { return r.done }

// Err returns nil until Done is closed. Then it is ErrClosed after Close, else the
// *Error by which the registry ended it: STALE_INCARNATION, another process has the id;
// UNAUTHENTICATED or FORBIDDEN, the token was revoked or may not do this any more.
func (r *Registered) Err() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.end
}
