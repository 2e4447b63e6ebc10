package client

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"slices"
	"sync"
	"time"
)

// TransportConfig tunes a Transport. The zero value is ready to use.
type TransportConfig struct {
	Base     http.RoundTripper          // sends requests. Default: one of its own, which waits 2 s for a connection and 30 s for an answer to begin
	Key      func(*http.Request) string // which requests belong together, for ConsistentHash. Default: none do
	Attempts int                        // at a request at most, each at another instance; default 3
	Budget   float64                    // retries at most, as a part of the requests; default 0.2
	Burst    int                        // retries at once, after a time without any; default 100
}

// Transport sends each request to an instance that a Balancer chooses. The URL's
// scheme and host are replaced by those of the instance, whose path goes before the
// request's; so any host will do, and the service's name is a good one.
//
// A request that fails is sent to another instance if that is safe and the retry budget
// allows: always if no connection was made; if the connection broke, or the answer was 502, 503 or 504,
// only if the request may be repeated: GET, HEAD, OPTIONS, TRACE, PUT and DELETE, and any
// with an Idempotency-Key header. Its body must be empty or come with GetBody, as http.NewRequest sees
// to. An answer that has begun is never repeated. A call whose time ran out counts
// against its instance; one that its caller cancelled does not.
//
// It does not follow redirects, an http.Client does; one to another host would
// be sent to an instance as well.
type Transport struct {
	balancer *Balancer
	cfg      TransportConfig
	budget   retryBudget
}

// NewTransport returns a Transport; it starts nothing.
func NewTransport(b *Balancer, cfg TransportConfig) (*Transport, error) {
	if cfg.Attempts < 0 || cfg.Budget < 0 || cfg.Burst < 0 {
		return nil, fmt.Errorf("transport config: negative value in %+v", cfg)
	}
	cfg.Attempts, cfg.Budget, cfg.Burst = cmp.Or(cfg.Attempts, 3), cmp.Or(cfg.Budget, 0.2), cmp.Or(cfg.Burst, 100)
	if cfg.Base == nil {
		cfg.Base = &http.Transport{
			DialContext:           (&net.Dialer{Timeout: 2 * time.Second}).DialContext,
			TLSHandshakeTimeout:   5 * time.Second,
			ResponseHeaderTimeout: 30 * time.Second,
			ForceAttemptHTTP2:     true,
			MaxIdleConnsPerHost:   64,
			IdleConnTimeout:       90 * time.Second,
		}
	}
	return &Transport{balancer: b, cfg: cfg, budget: retryBudget{ratio: cfg.Budget, most: float64(cfg.Burst), left: float64(cfg.Burst)}}, nil
}

// CloseIdleConnections drops connections that are idle, if Base has any.
func (t *Transport) CloseIdleConnections() {
	if c, ok := t.cfg.Base.(interface{ CloseIdleConnections() }); ok {
		c.CloseIdleConnections()
	}
}

// RoundTrip implements http.RoundTripper. Without an instance it is ErrNoInstance.
func (t *Transport) RoundTrip(req *http.Request) (*http.Response, error) {
	key := ""
	if t.cfg.Key != nil {
		key = t.cfg.Key(req)
	}
	pick, err := t.balancer.Pick(key)
	if err != nil {
		closeBody(req)
		return nil, err
	}
	t.budget.earn()
	var tried []string
	for attempt := 1; ; attempt++ {
		resp, err := t.send(req, pick, attempt)
		tried = append(tried, pick.Instance.ID)
		if attempt >= t.cfg.Attempts || !mayRetry(req, resp, err) {
			return resp, err
		}
		next, none := t.balancer.PickOther(func(i Instance) bool { return slices.Contains(tried, i.ID) })
		if none != nil {
			return resp, err
		}
		if !t.budget.spend() {
			next.Release()
			return resp, err
		}
		if resp != nil {
			_ = resp.Body.Close() // its rest is not worth waiting for: the connection goes with it
		}
		pick = next
	}
}

// send sends the request to an instance, and reports the outcome to the balancer when
// the response has been read or dropped.
func (t *Transport) send(req *http.Request, pick Pick, attempt int) (*http.Response, error) {
	out, err := newAttempt(req, pick.Instance.URL, attempt)
	if err != nil {
		pick.Release()
		return nil, err
	}
	began := time.Now()
	resp, err := t.cfg.Base.RoundTrip(out)
	took := time.Since(began)
	switch {
	case err != nil && isCancelled(req.Context()):
		pick.Release()
	case err != nil:
		pick.Done(false, took)
	default:
		resp.Body = watchBody(resp.Body, &inflightCall{pick: pick, ok: resp.StatusCode < http.StatusInternalServerError, took: took, caller: req.Context()})
	}
	return resp, err
}

// newAttempt is the request as it goes to an instance. The first attempt has the
// request's own body, others a fresh one.
func newAttempt(req *http.Request, instance string, attempt int) (*http.Request, error) {
	base, err := url.Parse(instance)
	if err != nil {
		if attempt == 1 {
			closeBody(req)
		}
		return nil, fmt.Errorf("the URL of the instance: %w", err)
	}
	out := req.Clone(req.Context())
	out.URL.Scheme, out.URL.Host, out.Host = base.Scheme, base.Host, ""
	out.URL.Path, out.URL.RawPath = base.Path+req.URL.Path, base.EscapedPath()+req.URL.EscapedPath()
	if attempt > 1 && req.GetBody != nil {
		if out.Body, err = req.GetBody(); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// mayRetry reports whether it is safe to send the request once more.
func mayRetry(req *http.Request, resp *http.Response, err error) bool {
	if req.Context().Err() != nil || req.Body != nil && req.Body != http.NoBody && req.GetBody == nil {
		return false
	}
	if err != nil {
		dial, ok := errors.AsType[*net.OpError](err)
		return ok && dial.Op == "dial" || mayRepeat(req)
	}
	switch resp.StatusCode {
	case http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		return mayRepeat(req)
	}
	return false
}

// mayRepeat reports whether the request may take effect twice.
func mayRepeat(req *http.Request) bool {
	switch req.Method {
	case "", http.MethodGet, http.MethodHead, http.MethodOptions, http.MethodTrace, http.MethodPut, http.MethodDelete:
		return true
	}
	return req.Header.Get("Idempotency-Key") != ""
}

// isCancelled reports whether a caller wants no answer any more. One whose time is up
// wanted it.
func isCancelled(caller context.Context) bool { return errors.Is(caller.Err(), context.Canceled) }

func closeBody(req *http.Request) {
	if req.Body != nil {
		_ = req.Body.Close()
	}
}

// inflightCall is a call whose answer has begun.
type inflightCall struct {
	pick   Pick
	ok     bool
	took   time.Duration   // until the answer began
	caller context.Context //nolint:containedctx // it is asked when the answer ends
	once   sync.Once
}

// finish reports the outcome once the response was read to its end, failed with err, or was dropped.
func (c *inflightCall) finish(err error) {
	c.once.Do(func() {
		switch {
		case err != nil && isCancelled(c.caller):
			c.pick.Release()
		default:
			c.pick.Done(c.ok && err == nil, c.took)
		}
	})
}

// body is the body of an answer that says when it is over.
type body struct {
	io.ReadCloser
	call *inflightCall
}

func (b *body) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	switch {
	case errors.Is(err, io.EOF):
		b.call.finish(nil)
	case err != nil:
		b.call.finish(err)
	}
	return n, err
}

func (b *body) Close() error {
	err := b.ReadCloser.Close()
	b.call.finish(nil)
	return err
}

// duplex is the body of a connection that was switched to another protocol.
type duplex struct {
	*body
	io.Writer
}

func watchBody(from io.ReadCloser, c *inflightCall) io.ReadCloser {
	b := &body{from, c}
	if w, ok := from.(io.Writer); ok {
		return &duplex{b, w}
	}
	return b
}

// retryBudget bounds retries: each request earns a part of one, up to a burst.
type retryBudget struct {
	ratio, most float64

	mu   sync.Mutex
	left float64
}

func (b *retryBudget) earn() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.left = min(b.left+b.ratio, b.most)
}

func (b *retryBudget) spend() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.left < 1 {
		return false
	}
	b.left--
	return true
}
