package cache

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"hash/crc32"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"

	"github.com/backplane-dev/backplane/internal/event"
)

// remote is the level in Redis. A nil client is none.
type remote struct {
	c       *Cache
	events  *event.Log
	client  *redis.Client
	gather  *redis.AutoPipeliner // of client: puts what many readers ask at the same time on the way together
	breaker breaker
	fills   chan fillJob
	wake    chan struct{}

	era atomic.Pointer[era] // nil while nothing in Redis may be read

	mu      sync.Mutex
	stale   *event.Cursor // where the hub was when it may have missed events; nil once it went on
	pending []*event.Event
	behind  bool // there was no room for more of them

	errors, fillsDropped, applied, caughtUp, renewed atomic.Uint64
}

// era is where keys live.
type era struct{ timeline, generation string }

func (e era) prefix() string { return keyFormat + e.timeline + ":" }

func (e era) meta() string { return e.prefix() + metaKey }

func (e era) key(entity, id string) string {
	return e.prefix() + e.generation + ":" + entity + ":" + id
}

// answer is what Redis holds of a row, and the lease to fill it under if that
// will not do.
type answer struct {
	at      era
	key     string
	isValue bool
	data    []byte // nil if it is no value, or damaged
	version int
	lease   string
}

const (
	maxFills   = 256     // batches of values that wait to be stored
	maxPending = 20_000  // events that Redis waits to hear of; beyond that they are read again
	maxValue   = 1 << 20 // bytes; larger values stay in the process
)

func newRemote(c *Cache, events *event.Log) (*remote, error) {
	r := &remote{c: c, events: events, fills: make(chan fillJob, maxFills), wake: make(chan struct{}, 1)}
	if c.cfg.RedisURL == "" || c.isOff() {
		return r, nil
	}
	opts, err := redis.ParseURL(c.cfg.RedisURL)
	if err != nil {
		return nil, errors.New("this is not a Redis URL such as redis://user:password@host:6379/0") // its own text may hold the password
	}
	wait := c.cfg.RedisTime
	opts.DialTimeout, opts.ReadTimeout, opts.WriteTimeout, opts.PoolTimeout = wait, wait, wait, wait
	opts.ContextTimeoutEnabled, opts.DisableIdentity = true, true
	opts.MaxRetries, opts.DialerRetries = -1, 1 // who waits for a second try waits too long
	opts.PoolSize, opts.MaxActiveConns = c.cfg.RedisConns, c.cfg.RedisConns
	opts.MaintNotificationsConfig = &maintnotifications.Config{Mode: maintnotifications.ModeDisabled}
	r.client = redis.NewClient(opts)
	r.gather, err = r.client.AutoPipeline()
	return r, err
}

func (r *remote) close() error {
	if r.client == nil {
		return nil
	}
	return errors.Join(r.gather.Close(), r.client.Close())
}

// limit bounds a call of Redis.
func (r *remote) limit(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(ctx, r.c.cfg.RedisTime)
}

// note tells the breaker how a call ended; that its caller gave up says nothing.
func (r *remote) note(ctx context.Context, err error) {
	switch {
	case err == nil:
		r.breaker.succeeded()
	case ctx.Err() == nil:
		r.errors.Add(1)
		if r.breaker.failed() {
			r.c.log.WarnContext(ctx, "Redis does not answer as it should; reads go on from the database", "error", err)
			signal(r.wake)
		}
	}
}

// get asks for rows in one round trip. It returns an answer for each, and the
// place of the log that Redis has heard of; ok is false if Redis is of no use.
func (r *remote) get(ctx context.Context, entity string, ids []string) (answers []answer, place event.Position, ok bool) {
	for range 2 { // again if the generation was renewed meanwhile
		at := r.era.Load()
		if at == nil || r.breaker.isOpen() {
			return nil, 0, false
		}
		keys := make([]string, 1, len(ids)+1)
		keys[0] = at.meta()
		for _, id := range ids {
			keys = append(keys, at.key(entity, id))
		}
		now, values, err := r.run(ctx, getScript, keys, at.generation, newToken(), r.leaseLife().Milliseconds())
		switch {
		case err != nil:
			return nil, 0, false
		case len(values) == len(ids):
			return answersOf(*at, keys[1:], values), now.place, true
		}
		r.moved(at, now)
	}
	return nil, 0, false
}

// leaseLife is how long a reader may take to fill: a request, at the longest.
func (r *remote) leaseLife() time.Duration { return r.c.cfg.RequestTime }

// tombstoneLife outlives every lease that was given before.
func (r *remote) tombstoneLife() time.Duration { return 2 * r.c.cfg.RequestTime }

// moved follows a generation that another node has begun. If there is none any
// more, Redis has lost everything and must be told where it stands first.
func (r *remote) moved(from *era, now told) {
	if now.generation == "" {
		r.era.CompareAndSwap(from, nil)
		signal(r.wake)
		return
	}
	r.era.CompareAndSwap(from, &era{from.timeline, now.generation})
}

// told is what Redis says of itself.
type told struct {
	generation string
	place      event.Position
}

// run runs a script that returns generation, place and perhaps values.
func (r *remote) run(ctx context.Context, s *redis.Script, keys []string, args ...any) (now told, values []any, err error) {
	limited, cancel := r.limit(ctx)
	defer cancel()
	reply, err := s.Run(limited, r.gather, keys, args...).Slice()
	r.note(ctx, err)
	if err != nil {
		return now, nil, err
	}
	if len(reply) < 2 {
		return now, nil, errReply
	}
	now.generation, _ = reply[0].(string)
	place, _ := reply[1].(string)
	n, err := strconv.ParseInt(place, 10, 64)
	if now.generation == "" || err != nil { // garbage is nothing to build on
		return told{}, nil, nil
	}
	now.place = event.Position(n)
	return now, reply[2:], nil
}

var errReply = errors.New("a script of ours returned something else")

func answersOf(at era, keys []string, values []any) []answer {
	answers := make([]answer, len(values))
	for i, v := range values {
		text, _ := v.(string)
		answers[i] = parse(text)
		answers[i].at, answers[i].key = at, keys[i]
	}
	return answers
}

// parse reads what stands under a key. Whoever cannot use it may replace it, as
// it is; so every text is a lease too.
func parse(text string) answer {
	a := answer{lease: text}
	head, rest, _ := strings.Cut(text, ":")
	digits, isValue := strings.CutPrefix(head, "v")
	version, err := strconv.Atoi(digits)
	if !isValue {
		return a
	}
	a.isValue = true
	if err == nil && len(rest) >= sumLength && rest[:sumLength] == checksum([]byte(rest[sumLength:])) {
		a.version, a.data = version, []byte(rest[sumLength:])
	}
	return a
}

const sumLength = 8

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func checksum(b []byte) string {
	return hex.EncodeToString(binary.BigEndian.AppendUint32(nil, crc32.Checksum(b, castagnoli)))
}

func format(version int, data []byte) string {
	return "v" + strconv.Itoa(version) + ":" + checksum(data) + string(data)
}

// newToken returns a text that nobody else has.
func newToken() string {
	var b [8]byte
	_, _ = rand.Read(b[:]) // documented never to fail
	return hex.EncodeToString(b[:])
}

// signal leaves a token in a channel of one, if there is none yet.
func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}
