package client

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"
)

// Watch is a set of a service's instances that is kept up to date. It ends with
// Close, or when the registry says that it must.
type Watch struct {
	client  *Client
	service string
	log     *slog.Logger
	cancel  context.CancelFunc
	done    chan struct{} // closed once the set is not kept up to date any more

	mu      sync.Mutex
	current *Set
	changed chan struct{} // closed when there is another set
	end     error         // why it ended; nil while it has not

	// Of the goroutine that follows.
	state       *serviceState
	cursor      string // of the last event; empty if the service must be read again
	node        int
	lastContact time.Time // when the registry last answered or sent
}

// Watch returns the set of a service's instances, and keeps it up to date: it
// reads it once, then receives each change within about a second. The token's owner needs
// the role SERVICE, STAFF or ADMIN, the token services:read or a service:NAME.
//
// It returns once it knows the service. While the registry cannot be reached it tries
// until ctx is over; what the registry refuses is returned at once, as an *Error. Ctx counts
// for this first time only.
//
// Later, whatever happens to the registry, the set stays as it was known last and says since
// when it is stale; it goes on with what was missed, from any node that answers. It never gets
// empty because of that, only if the registry says that no instance is left. A service that is
// deregistered meanwhile is an empty set; when it is registered again, its instances are
// in the set within 10 s.
func (c *Client) Watch(ctx context.Context, service string) (*Watch, error) {
	life, cancel := context.WithCancel(context.WithoutCancel(ctx))
	w := &Watch{
		client: c, service: service, log: c.cfg.Logger.With("service", service), cancel: cancel,
		done: make(chan struct{}), changed: make(chan struct{}), node: c.currentNode(),
	}
	pauses := watchPauses()
	for {
		err := w.readService(ctx)
		switch {
		case err == nil:
			go w.run(life)
			return w, nil
		case ctx.Err() != nil:
			cancel()
			return nil, fmt.Errorf("watch %s: %w", service, contextError(ctx, err))
		case !isTemporary(err):
			cancel()
			return nil, fmt.Errorf("watch %s: %w", service, err)
		}
		w.useNextNode()
		sleep(ctx, pauses.next())
	}
}

func watchPauses() backoff { return backoff{first: 200 * time.Millisecond, most: 10 * time.Second} }

// Set returns the current set; never nil.
func (w *Watch) Set() *Set {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.current
}

// Next waits for another set than the one given, and returns it; with nil it is
// Set. The error is the context's, or that of Err once the watch has ended.
func (w *Watch) Next(ctx context.Context, last *Set) (*Set, error) {
	for {
		w.mu.Lock()
		current, changed := w.current, w.changed
		w.mu.Unlock()
		if current != last {
			return current, nil
		}
		select {
		case <-changed:
		case <-w.done:
			if err := w.Err(); w.Set() == last {
				return nil, err
			}
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// Done is closed once the set is not kept up to date any more; Err says why.
func (w *Watch) Done() <-chan struct{} { return w.done }

// Err returns nil until Done is closed. Then it is ErrClosed after Close, else the
// *Error by which the registry ended it: UNAUTHENTICATED or FORBIDDEN, the token was
// revoked or may not see this any more. The set stays as it was.
func (w *Watch) Err() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.end
}

// Close ends the watch and waits until nothing of it is left. The set stays as it was.
func (w *Watch) Close() {
	w.cancel()
	<-w.done
}

// run follows the service until ctx is over or the registry says that it must end.
func (w *Watch) run(ctx context.Context) {
	defer close(w.done)
	pauses := watchPauses()
	for {
		began := time.Now()
		err := w.follow(ctx, &pauses)
		if time.Since(began) > w.client.cfg.Timeout {
			pauses.reset() // it succeeded for a while
		}
		switch {
		case ctx.Err() != nil:
			w.publishStale(ErrClosed)
			w.finish(ErrClosed)
			return
		case isRevoked(err):
			w.log.ErrorContext(ctx, "the service is not watched any more", "error", err)
			w.publishStale(err)
			w.finish(err)
			return
		case Code(err) == CodeServiceNotFound:
			w.cursor = ""
			w.publishEmpty(ctx)
			sleep(ctx, pauses.next())
			continue
		case slices.Contains([]string{codeCursorExpired, codeCursorUnknown, codeCursorInvalid}, Code(err)) || errors.Is(err, errTooLong):
			w.cursor = "" // read it anew
		default:
			w.useNextNode()
		}
		w.publishStale(err)
		sleep(ctx, pauses.next())
	}
}

// useNextNode makes the next node the one to call.
func (w *Watch) useNextNode() {
	w.client.useNextNode(w.node)
	w.node = (w.node + 1) % len(w.client.cfg.URLs)
}

// follow follows the service at one node, until an error.
func (w *Watch) follow(ctx context.Context, pauses *backoff) error {
	if w.cursor == "" {
		if err := w.readService(ctx); Code(err) == CodeServiceNotFound {
			return cmp.Or(w.client.reachesDatabase(ctx, w.node), err)
		} else if err != nil {
			return err
		}
	}
	s, err := w.client.subscribe(ctx, w.node, subscribeService, map[string]any{"name": w.service}, w.cursor)
	if err != nil {
		return err
	}
	defer s.close()
	for {
		b, err := s.next(eventsField)
		if err != nil {
			return err
		}
		if err := w.applyMessage(b); err != nil {
			return err
		}
		if b.data != nil {
			pauses.reset()
		}
	}
}

// readService reads the service as it is.
func (w *Watch) readService(ctx context.Context) error {
	know, cursor, err := w.client.readSnapshot(ctx, w.node, w.service)
	if err != nil {
		return err
	}
	w.state, w.cursor, w.lastContact = know, cursor, time.Now()
	w.publish(know.set(w.service))
	return nil
}

// publishEmpty publishes an empty set: the registry says that the service does not exist. It was
// deregistered since it was read; it is read again until it is registered again.
func (w *Watch) publishEmpty(ctx context.Context) {
	w.lastContact = time.Now()
	current := w.Set()
	if len(current.Instances) == 0 && current.Stale.IsZero() {
		return
	}
	w.log.InfoContext(ctx, "the service does not exist any more; its set is empty until it is registered again")
	w.publish(&Set{Service: w.service, Strategy: current.Strategy})
}

// applyMessage applies a message of the stream. An event that cannot be read counts as a gap:
// the service is read again.
func (w *Watch) applyMessage(b streamMessage) error {
	w.lastContact = time.Now()
	if b.data == nil {
		w.publishFresh(nil)
	} else {
		var n registryEvent
		err := json.Unmarshal(b.data, &n)
		if err == nil {
			err = w.state.apply(n)
		}
		if err != nil {
			w.cursor = ""
			return fmt.Errorf("read an event: %w", err)
		}
		w.publishFresh(w.state.set(w.service))
	}
	if b.cursor != "" {
		w.cursor = b.cursor
	}
	return nil
}

// publishFresh publishes the set, or with nil the current one if that was stale.
func (w *Watch) publishFresh(s *Set) {
	if s == nil {
		current := w.Set()
		if current.Stale.IsZero() {
			return
		}
		w.log.Info("the registry is reachable again; the set is up to date")
		again := *current
		again.Stale, again.Trouble = time.Time{}, nil
		s = &again
	}
	w.publish(s)
}

// publishStale publishes the set as stale since the last contact with the registry.
func (w *Watch) publishStale(why error) {
	current := w.Set()
	old := *current
	old.Trouble = why
	if old.Stale.IsZero() {
		old.Stale = w.lastContact
		if !errors.Is(why, ErrClosed) {
			w.log.Warn("the registry is unreachable; the set stays as last known", "instances", len(old.Instances), "error", why)
		}
	}
	w.publish(&old)
}

func (w *Watch) publish(s *Set) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.current = s
	close(w.changed)
	w.changed = make(chan struct{})
}

func (w *Watch) finish(why error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.end = why
}
