package gateway

import (
	"context"
	"errors"
	"io"
	"maps"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"sync/atomic"
	"time"

	"github.com/backplane-dev/backplane/internal/balance"
	"github.com/backplane-dev/backplane/internal/fault"
	"github.com/backplane-dev/backplane/internal/registry"
)

// errConnect is the error of an attempt without a connection: nothing of the request was sent.
type errConnect struct{ error }

func (e errConnect) Unwrap() error { return e.error }

// limitConnect returns the guard's dial function with a time limit.
func limitConnect(guard *Guard, limit time.Duration) func(ctx context.Context, network, address string) (net.Conn, error) {
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		ctx, cancel := context.WithTimeout(ctx, limit)
		defer cancel()
		conn, err := guard.DialContext(ctx, network, address)
		if err != nil {
			return nil, errConnect{err}
		}
		return conn, nil
	}
}

// attempt is one request to one instance. It counts as in flight there until it is reported or released.
type attempt struct {
	call     *call
	pick     balance.Pick
	instance *registry.Instance
	url      *url.URL
	trusted  bool          // ADMIN trusts the service at this URL
	conns    atomic.Int32  // that net/http gave it
	took     time.Duration // until the response header
	reported bool
}

// pickFirst picks the instance of the first attempt: by the service's strategy, unless its circuit
// breaker is open.
func (c *call) pickFirst() (*attempt, error) {
	g := c.gateway
	p, err := g.deps.Pool.Pick(c.set, c.set.Service.Strategy, c.key)
	if err != nil {
		return nil, err
	}
	if g.breakers.admitCall(p.Instance(), time.Now()) {
		return c.newAttempt(p)
	}
	p.Release()
	if a := c.pickOther(); a != nil {
		return a, nil
	}
	g.metrics.circuitRefused.Add(1)
	return nil, errNoInstance()
}

// pickOther picks an instance that this call has not tried; nil if there is none.
func (c *call) pickOther() *attempt {
	g := c.gateway
	if set := g.deps.Directory.Set(c.target.service); set != nil {
		c.set = set // instances may have come or gone
	}
	now := time.Now()
	p, err := g.deps.Pool.PickOther(c.set, func(i *registry.Instance) bool { return c.wasTried(i) || g.breakers.isOpen(i, now) })
	if err != nil {
		return nil
	}
	if !g.breakers.admitCall(p.Instance(), now) { // another call is the probe
		p.Release()
		return nil
	}
	a, err := c.newAttempt(p)
	if err != nil {
		return nil
	}
	return a
}

func (c *call) wasTried(i *registry.Instance) bool {
	for _, t := range c.attempts {
		if t.instance.ID == i.ID && t.instance.Incarnation == i.Incarnation {
			return true
		}
	}
	return false
}

func (c *call) newAttempt(p balance.Pick) (*attempt, error) {
	i := p.Instance()
	u, err := url.Parse(i.URL)
	if err != nil { // cannot happen: the registry has parsed it
		p.Release()
		return nil, err
	}
	a := &attempt{call: c, pick: p, instance: i, url: u, trusted: c.set.Service.TrustsInstance(i.URL)}
	c.attempts = append(c.attempts, a)
	return a, nil
}

// errNoInstance is the error for a service with no instance that may be called.
func errNoInstance() error {
	return fault.New(registry.CodeNoInstance, "No instance of this service can be called at the moment.").After(time.Second)
}

// retryTransport is the transport of the reverse proxy: a loop over attempts, so that nothing of a
// response has reached the caller when another attempt begins.
type retryTransport struct{}

// RoundTrip implements http.RoundTripper.
func (retryTransport) RoundTrip(out *http.Request) (*http.Response, error) {
	c := callOf(out.Context())
	a, err := c.pickFirst()
	if err != nil {
		return nil, err
	}
	for {
		res, err := a.send(out)
		next := c.nextAttempt(a, res, err)
		if next == nil {
			if err != nil {
				a.recordFailure(err)
			}
			return res, err
		}
		a.recordRetried(res, err)
		a = next
	}
}

// send sends the request to the attempt's instance and waits for the response header.
func (a *attempt) send(out *http.Request) (*http.Response, error) {
	c := a.call
	// This drops the proxy's own trace, which would forward interim responses with all of their headers.
	ctx, drop := context.WithCancelCause(c.ctx)
	req := out.WithContext(httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{GotConn: func(got httptrace.GotConnInfo) {
		if a.conns.Add(1) > 1 && !a.allowResend() {
			drop(errDropped)
			_ = got.Conn.Close() // or the request would be sent before the cancellation takes effect
		}
	}}))
	req.URL = c.target.urlOn(a.url, c.request)
	if own := a.credentialsFor(); len(own) > 0 {
		req.Header = maps.Clone(req.Header)
		maps.Copy(req.Header, own)
	}
	c.body.attachTo(req)
	start := time.Now()
	res, err := c.gateway.transport.RoundTrip(req)
	a.took = time.Since(start)
	c.timers.recordProgress()
	if err != nil {
		return nil, err
	}
	c.gateway.breakers.recordResponse(a.instance)
	if res.ContentLength > 0 && out.Method != http.MethodHead {
		return awaitFirstBytes(res)
	}
	return res, nil
}

// errDropped ends an attempt that net/http wanted to send again and must not.
var errDropped = errors.New("the connection was lost and the request must not be sent again")

// allowResend reports whether net/http may send the attempt on another connection. It asks when a
// kept-alive connection turns out to be lost, since instances close idle ones at any time. That counts
// as a retry; there is at most one, however many connections were kept.
func (a *attempt) allowResend() bool {
	c := a.call
	switch {
	case !c.idempotent:
		return !isReplayedByTransport(c.request.Header) // nothing was sent, or net/http would not ask
	case a.conns.Load() > 2:
		return false
	case !c.gateway.retries.allowRetry(c.set.Service.ID, time.Now()):
		c.gateway.metrics.overBudget.Add(1)
		return false
	}
	c.gateway.metrics.retriedReset.Add(1)
	return true
}

// isReplayedByTransport reports whether net/http takes the request for idempotent by its headers alone.
func isReplayedByTransport(h http.Header) bool {
	return h["Idempotency-Key"] != nil || h["X-Idempotency-Key"] != nil
}

// firstBytes is how much of a body an attempt waits for before it forwards the header.
const firstBytes = 4 << 10

// awaitFirstBytes waits for the first bytes of a response that states its length: until any of it is
// forwarded, another instance can respond instead.
func awaitFirstBytes(res *http.Response) (*http.Response, error) {
	b := &peekedBody{ReadCloser: res.Body, first: make([]byte, min(res.ContentLength, firstBytes))}
	n, err := res.Body.Read(b.first)
	if n == 0 && err != nil && !errors.Is(err, io.EOF) {
		_ = res.Body.Close() // the connection is broken
		return nil, err
	}
	b.first, b.err = b.first[:n], err
	res.Body = b
	return res, nil
}

// peekedBody is a body whose first bytes were read already.
type peekedBody struct {
	io.ReadCloser
	first []byte
	err   error // of that read
}

// Read implements io.Reader.
func (b *peekedBody) Read(p []byte) (int, error) {
	if len(b.first) > 0 {
		n := copy(p, b.first)
		if b.first = b.first[n:]; len(b.first) > 0 {
			return n, nil
		}
		return n, b.err
	}
	if b.err != nil {
		return 0, b.err
	}
	return b.ReadCloser.Read(p)
}

// nextAttempt returns the attempt that follows a; nil if the caller gets what a has.
func (c *call) nextAttempt(a *attempt, res *http.Response, err error) *attempt {
	why := c.retryCounter(a, res, err)
	if why == nil || len(c.attempts) >= c.gateway.cfg.Attempts {
		return nil
	}
	next := c.pickOther()
	if next == nil {
		return nil
	}
	if !c.gateway.retries.allowRetry(c.set.Service.ID, time.Now()) {
		c.gateway.metrics.overBudget.Add(1)
		next.release()
		c.attempts = c.attempts[:len(c.attempts)-1]
		return nil
	}
	why.Add(1)
	return next
}

// retryCounter returns the counter of the kind of retry, nil if the call must not be sent again. It may
// be if nothing was sent; else only if the request is idempotent and the instance failed or was busy,
// but not if it was slow.
func (c *call) retryCounter(a *attempt, res *http.Response, err error) *atomic.Uint64 {
	counts := &c.gateway.metrics
	switch {
	case c.ctx.Err() != nil || c.body.callerError() != nil || !c.body.isReplayable():
		return nil
	case err != nil && a.wasNotSent(err):
		return &counts.retriedConnect
	case !c.idempotent:
		return nil
	case err != nil && !isTimeout(err):
		return &counts.retriedReset
	case err == nil && isBusy(res.StatusCode):
		return &counts.retriedStatus
	}
	return nil
}

// wasNotSent reports whether no connection took any of the request. A failed connect proves that only if
// net/http had not lost another connection before.
func (a *attempt) wasNotSent(err error) bool {
	_, ok := errors.AsType[errConnect](err)
	return a.conns.Load() == 0 || ok && !isReplayedByTransport(a.call.request.Header)
}

// isBusy reports whether the status says that the instance, or one behind it, could not take the call.
func isBusy(status int) bool {
	return status == http.StatusBadGateway || status == http.StatusServiceUnavailable || status == http.StatusGatewayTimeout
}

func isTimeout(err error) bool {
	e, ok := errors.AsType[net.Error](err)
	return ok && e.Timeout()
}

// recordFailure ends an attempt without a response. A caller that left or sent a broken body does not
// count against the instance.
func (a *attempt) recordFailure(err error) {
	c := a.call
	if (c.ctx.Err() != nil || c.body.callerError() != nil) && !c.instanceStalled() && !a.couldNotConnect(err) {
		a.release()
		return
	}
	c.gateway.breakers.recordFailure(a.instance, time.Now())
	a.report(false)
}

// instanceStalled reports whether the call went idle while it waited for the instance.
func (c *call) instanceStalled() bool {
	return errors.Is(context.Cause(c.ctx), errIdle) && c.body.isComplete()
}

// couldNotConnect reports whether the instance was unreachable, whatever the caller did meanwhile.
func (a *attempt) couldNotConnect(err error) bool {
	_, ok := errors.AsType[errConnect](err)
	return ok && !errors.Is(err, context.Canceled)
}

// recordRetried ends an attempt that another one follows.
func (a *attempt) recordRetried(res *http.Response, err error) {
	if err != nil {
		a.recordFailure(err)
		return
	}
	_ = res.Body.Close() // closes the connection, as the rest is not worth reading
	a.report(false)
}

func (a *attempt) report(ok bool) {
	if !a.reported {
		a.reported = true
		a.pick.Done(ok, a.took)
	}
}

func (a *attempt) release() {
	if !a.reported {
		a.reported = true
		a.pick.Release()
	}
}
