package gateway

import (
	"context"
	"errors"
	"log/slog"
	"net/http"
	"strings"
	"time"

	"github.com/backplane-dev/backplane/internal/auth"
	"github.com/backplane-dev/backplane/internal/fault"
	"github.com/backplane-dev/backplane/internal/problem"
	"github.com/backplane-dev/backplane/internal/registry"
	"github.com/backplane-dev/backplane/internal/requestlog"
)

// call is one forwarded request, from its admission to its end.
type call struct {
	gateway    *Gateway
	request    *http.Request
	ctx        context.Context //nolint:containedctx // the call is what this context belongs to
	cancel     context.CancelCauseFunc
	set        *registry.Set
	target     target
	callerID   string      // user, or network of an anonymous caller; holds the permit
	token      string      // the service token; empty for anonymous callers
	withheld   http.Header // credentials of the request that the forwarded header lacks
	key        string      // hash key of CONSISTENT_HASH
	idempotent bool
	body       *requestBody
	writer     *responseWriter
	timers     *timers
	unwatch    func() bool // ends the watch for the end of the credential
	attempts   []*attempt
	response   *responseBody // of the last attempt; nil if it had no response
}

type callKey struct{}

func callOf(ctx context.Context) *call {
	c, _ := ctx.Value(callKey{}).(*call)
	return c
}

// admit checks whether the request may be forwarded, acquires a permit and reads a small body.
func (g *Gateway) admit(w http.ResponseWriter, r *http.Request) (*call, error) {
	t, err := parseTarget(r.URL.EscapedPath())
	if err != nil {
		return nil, err
	}
	if err := checkForwardable(r); err != nil {
		return nil, err
	}
	set, err := g.deps.Directory.SetForCall(r.Context(), t.service)
	if err != nil {
		return nil, err
	}
	c := &call{gateway: g, request: r, set: set, target: t, idempotent: isIdempotent(r), writer: &responseWriter{ResponseWriter: w}}
	if err := c.identifyCaller(r); err != nil {
		return nil, err
	}
	if err := g.semaphore.acquire(c.callerID); err != nil {
		return nil, err
	}
	if c.body, err = g.readBody(w, r); err != nil {
		g.semaphore.release(c.callerID)
		return nil, err
	}
	g.retries.recordCall(set.Service.ID, time.Now())
	c.startTimers(r.Context())
	g.admitPublic(c)
	return c, nil
}

// identifyCaller sets what the semaphore, the pick and the service know the caller by.
func (c *call) identifyCaller(r *http.Request) (err error) {
	caller := auth.LastKnown(r.Context())
	if c.callerID = auth.ClientFrom(r.Context()).Network(); caller != nil {
		c.callerID = string(caller.UserID) // the same user for all of the user's keys
	}
	if c.key = r.Header.Get(KeyHeader); len(c.key) > registry.MaxPickKey {
		return fault.New(fault.BadRequest, "%s must be at most %d bytes long.", KeyHeader, registry.MaxPickKey)
	}
	if c.key == "" {
		c.key = c.callerID
	}
	if caller != nil {
		c.token, err = c.gateway.deps.Tokens(r.Context(), caller, c.target.service)
	}
	return err
}

// startTimers sets the call's context and starts the timers that bound it.
func (c *call) startTimers(ctx context.Context) {
	c.ctx, c.cancel = context.WithCancelCause(context.WithValue(ctx, callKey{}, c))
	// An earlier request on the connection may have left its deadlines.
	_ = c.setDeadlines(time.Time{})
	_ = http.NewResponseController(c.writer).EnableFullDuplex() // or the server reads the whole body before it sends a response
	c.timers = startTimers(c.gateway.cfg.IdleTime, c.gateway.cfg.TotalTime, c.expire)
	c.body.onRead = c.timers.recordProgress
	c.unwatch = context.AfterFunc(ctx, func() {
		if isCredentialEnd(context.Cause(ctx)) {
			c.timers.expireNow(context.Cause(ctx))
		}
	})
}

// isCredentialEnd reports whether the cause of a request's end is that its caller may not call the service any more: its
// credential is no longer valid, or the service is no longer public. A fault names it; a caller that left is none.
func isCredentialEnd(cause error) bool {
	_, ok := errors.AsType[*fault.Error](cause)
	return ok
}

// expire ends the call. It unblocks reads from the caller and, once the response has begun, writes
// to the caller. A problem document that says why there is no response is never interrupted.
//
// The order matters: the cancellation makes the proxy write that document, so whether a response
// has begun must be known before it.
func (c *call) expire(cause error) {
	c.writer.expired.Store(true)
	begun := c.writer.begun.Load()
	c.cancel(cause)
	ctl := http.NewResponseController(c.writer)
	_ = ctl.SetReadDeadline(time.Now())
	if begun {
		_ = ctl.SetWriteDeadline(time.Now())
	}
}

// setDeadlines sets both deadlines of the caller's connection. A response writer of a test may have none.
func (c *call) setDeadlines(at time.Time) error {
	ctl := http.NewResponseController(c.writer)
	return errors.Join(ctl.SetReadDeadline(at), ctl.SetWriteDeadline(at))
}

// closeAfterResponse makes this the last response on the caller's connection. That is necessary whenever
// a part of the body may be unread, since the server would take it for the next request, and after
// expire, since the server gives up a connection whose deadline has passed.
func (c *call) closeAfterResponse() { c.writer.Header().Set("Connection", "close") }

// checkForwardable refuses requests that the gateway does not forward.
func checkForwardable(r *http.Request) error {
	switch {
	case r.Method == http.MethodTrace || r.Method == http.MethodConnect:
		return &problem.Error{Status: http.StatusMethodNotAllowed, Allow: "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS",
			Fault: fault.New(fault.BadRequest, "The gateway does not forward %s requests.", r.Method)}
	case isLoop(r):
		return problem.New(http.StatusLoopDetected, fault.New(fault.BadRequest, "The call loops between gateways."))
	case r.Header.Get("Upgrade") != "" && !isProtocol(r.Header.Get("Upgrade")):
		return fault.New(fault.BadRequest, "The Upgrade header names no protocol.")
	}
	return nil
}

func isProtocol(s string) bool {
	name, version, _ := strings.Cut(s, "/")
	return isToken(name) && (version == "" || isToken(version))
}

// isTunnel reports whether the protocol is HTTP or TLS itself: requests inside such a connection would
// bypass all that the gateway checks and rewrites.
func isTunnel(protocol string) bool {
	name, _, _ := strings.Cut(strings.ToLower(protocol), "/")
	return name == "http" || name == "h2c" || name == "h2" || name == "h3" || name == "tls"
}

// isIdempotent reports whether sending the request twice has the effect of sending it once: by its
// method, or because the caller gave an idempotency key.
func isIdempotent(r *http.Request) bool {
	switch r.Method {
	case http.MethodGet, http.MethodHead, http.MethodOptions, http.MethodPut, http.MethodDelete:
		return true
	}
	return r.Header.Get("Idempotency-Key") != ""
}

// finish ends the call: it reports the outcome to balance, metrics and access log, and releases the permit.
func (c *call) finish() {
	c.unwatch()
	c.gateway.public.remove(c)
	c.timers.stop()
	outcome := c.reportOutcome()
	c.cancel(nil)
	if complete := c.body.closeReader(); !complete {
		// A goroutine may be blocked in reading the rest of the body. The server would interrupt that,
		// forget the deadline, and wait for the rest itself.
		if http.NewResponseController(c.writer).SetReadDeadline(time.Now()) == nil {
			c.body.awaitReader()
		}
	}
	c.gateway.semaphore.release(c.callerID)
	c.gateway.metrics.recordOutcome(outcome)
	attrs := []slog.Attr{slog.String("service", c.target.service), slog.Int("attempts", len(c.attempts)), slog.String("outcome", outcome)}
	if n := len(c.attempts); n > 0 {
		attrs = append(attrs, slog.String("instance", c.attempts[n-1].instance.InstanceID))
	}
	requestlog.AddFields(c.ctx, attrs...)
}

// Outcomes of calls, in metrics and the access log.
const (
	outcomeOK        = "ok"        // the caller has an instance's response
	outcomeFailed    = "failed"    // no instance responded, and the caller got a problem document
	outcomeCut       = "cut"       // the response broke off after it had begun
	outcomeCancelled = "cancelled" // the caller left
)

// reportOutcome determines the call's outcome, and reports the last attempt to package balance.
func (c *call) reportOutcome() string {
	cause := context.Cause(c.ctx)
	ended := errors.Is(cause, errIdle) || errors.Is(cause, errTotal) || isCredentialEnd(cause)
	callerLeft := !ended && (c.request.Context().Err() != nil || c.writer.callerLost.Load())
	if c.response == nil {
		for _, a := range c.attempts {
			a.report(false) // unless it is reported already: its response could not be forwarded
		}
		if callerLeft {
			return outcomeCancelled
		}
		return outcomeFailed
	}
	a, res := c.attempts[len(c.attempts)-1], c.response
	switch {
	case res.complete || res.status == http.StatusSwitchingProtocols:
		a.report(!isBusy(res.status))
		return outcomeOK
	case res.waiting.Load() && c.instanceStalled(), res.err != nil && cause == nil:
		a.report(false)
		return outcomeCut
	}
	a.release()
	if callerLeft {
		return outcomeCancelled
	}
	return outcomeCut
}
