package provider

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"net"
	"net/http"
	"net/http/httptrace"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/backplane-dev/backplane/internal/balance"
	"github.com/backplane-dev/backplane/internal/gateway"
	"github.com/backplane-dev/backplane/internal/payment"
	"github.com/backplane-dev/backplane/internal/registry"
)

// attempts is how many instances a call tries. Only connections that fail, answers that break off and the
// statuses of an overloaded instance lead to another attempt; a slow instance has used the time of the call.
const attempts = 3

// call is one call of the protocol, with all of its attempts.
type call struct {
	client *Client
	set    *registry.Set
	req    request
	body   []byte
	tried  []*registry.Instance
	sent   bool // an instance may have got the request, and no answer told of it
}

// do makes a call: at one instance after another while the failure of one says that another can answer.
func (c *Client) do(ctx context.Context, req request) (payment.Answer, error) {
	set := c.marked()
	if set == nil {
		return payment.Answer{}, &payment.CallError{Message: "no service " + c.cfg.Service + " is registered and marked as payment provider", Err: payment.ErrNoProvider}
	}
	pick, err := c.deps.Pool.Pick(set, set.Service.Strategy, string(req.payment))
	if err != nil {
		return payment.Answer{}, &payment.CallError{Message: "no instance of " + c.cfg.Service + " can be called", Err: payment.ErrNoProvider}
	}
	call := &call{client: c, set: set, req: req}
	if req.body != nil {
		if call.body, err = json.Marshal(req.body); err != nil {
			pick.Release()
			return payment.Answer{}, &payment.CallError{Message: "the request cannot be written", Err: err}
		}
	}
	ctx, cancel := context.WithTimeout(ctx, c.cfg.Timeout)
	defer cancel()
	return call.run(ctx, pick)
}

func (c *call) run(ctx context.Context, pick balance.Pick) (payment.Answer, error) {
	for {
		answer, failure := c.attempt(ctx, pick)
		if failure == nil {
			return answer, nil
		}
		c.sent = c.sent || failure.sent
		if !failure.elsewhere || len(c.tried) >= attempts || ctx.Err() != nil {
			return c.fail(failure)
		}
		next, err := c.client.deps.Pool.PickOther(c.set, c.wasTried)
		if err != nil {
			return c.fail(failure)
		}
		pick = next
	}
}

// fail returns the error of the call: that of its last attempt. The outcome is unknown if any of its
// attempts may have been received, also if a later one was not.
func (c *call) fail(f *failure) (payment.Answer, error) {
	if f.absent { // all instances know the same payments
		return payment.Answer{}, payment.ErrUnknownToProvider
	}
	return payment.Answer{}, &payment.CallError{Instance: c.tried[len(c.tried)-1].InstanceID, Sent: c.sent, Message: f.message, Err: f.err}
}

func (c *call) wasTried(i *registry.Instance) bool {
	for _, t := range c.tried {
		if t.ID == i.ID {
			return true
		}
	}
	return false
}

// failure is an attempt without an answer.
type failure struct {
	sent      bool   // the instance may have got the request, and what it did is not known
	elsewhere bool   // another instance may answer
	absent    bool   // the instance says that it never got the payment or refund
	healthy   bool   // the instance works: the failure does not count against it
	message   string // for staff
	err       error  // for the log; may be nil
}

// attempt sends the request to one instance and reports the outcome to package balance.
func (c *call) attempt(ctx context.Context, pick balance.Pick) (payment.Answer, *failure) {
	i := pick.Instance()
	c.tried = append(c.tried, i)
	start := time.Now()
	answer, f := c.send(ctx, i)
	switch took := time.Since(start); {
	case f == nil || f.healthy:
		pick.Done(true, took)
	case errors.Is(ctx.Err(), context.Canceled): // the caller left, so that nothing is known of the instance
		pick.Release()
	default:
		pick.Done(false, took)
	}
	answer.Instance = i.InstanceID
	return answer, f
}

func (c *call) send(ctx context.Context, i *registry.Instance) (payment.Answer, *failure) {
	var connected atomic.Bool
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{GotConn: func(httptrace.GotConnInfo) { connected.Store(true) }})
	r, err := http.NewRequestWithContext(ctx, c.req.method, strings.TrimSuffix(i.URL, "/")+c.req.path, bytes.NewReader(c.body))
	if err != nil {
		return payment.Answer{}, &failure{message: "its URL cannot be called", err: err}
	}
	r.Header.Set("User-Agent", "backplane-payments")
	r.Header.Set("Accept", "application/json")
	if c.req.body != nil {
		r.Header.Set("Content-Type", "application/json")
		r.Header.Set("Idempotency-Key", c.req.id)
	}
	resp, err := c.client.transport.RoundTrip(r) // and no http.Client, which would follow redirects
	if err != nil {
		return payment.Answer{}, describeFailure(ctx, err, connected.Load())
	}
	defer resp.Body.Close()
	answer, f := c.readAnswer(resp)
	if f != nil && ctx.Err() != nil {
		f.elsewhere = false
	}
	return answer, f
}

// describeFailure describes an attempt without a response. A connection that failed proves that nothing
// was sent only if no other one was there before: net/http sends a request again when a kept connection
// turns out to be closed.
func describeFailure(ctx context.Context, err error, connected bool) *failure {
	f := &failure{sent: connected, elsewhere: true, err: err}
	_, dial := errors.AsType[errDial](err)
	switch {
	case errors.Is(err, gateway.ErrDenied):
		f.message = "its address may not be called (BACKPLANE_OUTBOUND_NETWORKS)"
	case ctx.Err() != nil:
		f.elsewhere, f.message = false, "no answer in time"
	case errors.Is(err, syscall.ECONNREFUSED):
		f.message = "the connection was refused"
	case dial || !connected:
		f.message = "no connection could be made"
	default:
		f.message = "the connection broke off before the answer"
	}
	return f
}

// errDial is the error of a connection that could not be made.
type errDial struct{ error }

func (e errDial) Unwrap() error { return e.error }

// limitDial returns the guard's dial function with a time limit.
func limitDial(guard *gateway.Guard, limit time.Duration) func(ctx context.Context, network, address string) (net.Conn, error) {
	return func(ctx context.Context, network, address string) (net.Conn, error) {
		ctx, cancel := context.WithTimeout(ctx, limit)
		defer cancel()
		conn, err := guard.DialContext(ctx, network, address)
		if err != nil {
			return nil, errDial{err}
		}
		return conn, nil
	}
}
