package gateway

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"mime"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/backplane-dev/backplane/internal/auth"
	"github.com/backplane-dev/backplane/internal/fault"
	"github.com/backplane-dev/backplane/internal/problem"
	"github.com/backplane-dev/backplane/internal/registry"
	"github.com/backplane-dev/backplane/internal/requestlog"
)

// call is one request that is passed on, from its admission to its end.
type call struct {
	gateway    *Gateway
	request    *http.Request
	ctx        context.Context //nolint:containedctx // the call is what this context is of
	cancel     context.CancelCauseFunc
	set        *registry.Set
	target     target
	callerID   string // whose place it takes
	token      string // that the service gets; empty if there is nobody to be named
	key        string // of CONSISTENT_HASH
	idempotent bool
	body       *requestBody
	writer     *responseWriter
	timers     *timers
	attempts   []*attempt
	response   *responseBody // of the last attempt; nil if there is none
}

type callKey struct{}

func callOf(ctx context.Context) *call {
	c, _ := ctx.Value(callKey{}).(*call)
	return c
}

// admit looks whether the request may be passed on, and takes a place for it.
func (g *Gateway) admit(w http.ResponseWriter, r *http.Request) (*call, error) {
	t, err := parseTarget(r.URL.EscapedPath())
	if err != nil {
		return nil, err
	}
	if err := checkForwardable(r); err != nil {
		return nil, err
	}
	set, err := g.deps.Directory.ForCall(r.Context(), t.service)
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
	return c, nil
}

// identifyCaller finds out who is calling: for the place, the balance and the service.
func (c *call) identifyCaller(r *http.Request) (err error) {
	caller := auth.LastKnown(r.Context())
	if c.callerID = auth.ClientFrom(r.Context()).Address; caller != nil {
		c.callerID = string(caller.UserID) // with whichever key
	}
	if c.key = r.Header.Get(KeyHeader); len(c.key) > registry.MaxPickKey {
		return fault.New(fault.Invalid, fault.BadRequest, "%s must be at most %d bytes long.", KeyHeader, registry.MaxPickKey)
	}
	if c.key == "" {
		c.key = c.callerID
	}
	if caller != nil && !c.set.Service.Trusted {
		c.token, err = c.gateway.deps.Tokens(r.Context(), caller, c.target.service)
	}
	return err
}

// startTimers starts what bounds the call.
func (c *call) startTimers(ctx context.Context) {
	c.ctx, c.cancel = context.WithCancelCause(context.WithValue(ctx, callKey{}, c))
	// A former request of the connection may have left its deadlines.
	_ = c.setDeadlines(time.Time{})
	_ = http.NewResponseController(c.writer).EnableFullDuplex() // or the whole body would be read before an answer is sent
	c.timers = startTimers(c.gateway.cfg.IdleTime, c.gateway.cfg.TotalTime, c.expire)
	c.body.onRead = c.timers.recordProgress
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

// setDeadlines sets both deadlines of the caller's connection. In tests there may be none.
func (c *call) setDeadlines(at time.Time) error {
	ctl := http.NewResponseController(c.writer)
	return errors.Join(ctl.SetReadDeadline(at), ctl.SetWriteDeadline(at))
}

// closeAfterResponse makes the answer the last one of the caller's connection. That has to be whenever a part
// of the body may be left in it, which would be taken for the next request, and after expire, since
// for the server a connection whose deadline passed is lost.
func (c *call) closeAfterResponse() { c.writer.Header().Set("Connection", "close") }

// checkForwardable refuses requests that are not for passing on.
func checkForwardable(r *http.Request) error {
	switch {
	case r.Method == http.MethodTrace || r.Method == http.MethodConnect:
		return &problem.Error{Status: http.StatusMethodNotAllowed, Allow: "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS",
			Fault: fault.New(fault.Invalid, fault.BadRequest, "The gateway does not pass %s on.", r.Method)}
	case isLoop(r):
		return problem.New(http.StatusLoopDetected, fault.New(fault.Invalid, fault.BadRequest, "The call goes round in circles between gateways."))
	case r.Header.Get("Upgrade") != "" && !isProtocol(r.Header.Get("Upgrade")):
		return fault.New(fault.Invalid, fault.BadRequest, "The Upgrade header names no protocol.")
	}
	return nil
}

func isProtocol(s string) bool {
	name, version, _ := strings.Cut(s, "/")
	return isToken(name) && (version == "" || isToken(version))
}

// isTunnel reports whether the protocol is HTTP itself. Whatever was asked for in it would pass by
// all that the gateway does to a request.
func isTunnel(protocol string) bool {
	name, _, _ := strings.Cut(strings.ToLower(protocol), "/")
	return name == "http" || name == "h2c" || name == "h2" || name == "h3" || name == "tls"
}

// isRequestedUpgrade reports whether the answer changes to the protocol that its request, as it went on,
// named.
func isRequestedUpgrade(res *http.Response) bool {
	asked := res.Request.Header.Get("Upgrade")
	names := strings.FieldsFunc(strings.Join(res.Header.Values("Connection"), ","), func(r rune) bool { return r == ',' || r == ' ' || r == '\t' })
	return asked != "" && strings.EqualFold(res.Header.Get("Upgrade"), asked) &&
		slices.ContainsFunc(names, func(name string) bool { return strings.EqualFold(name, "upgrade") })
}

// isIdempotent reports whether doing twice what the request asks for is as doing it once, by its
// method or since its sender says so.
func isIdempotent(r *http.Request) bool {
	switch r.Method {
	case http.MethodGet, http.MethodHead, http.MethodOptions, http.MethodPut, http.MethodDelete:
		return true
	}
	return r.Header.Get("Idempotency-Key") != ""
}

// filterResponse makes the answer of an instance what the caller gets.
func filterResponse(res *http.Response) error {
	c := callOf(res.Request.Context())
	a := c.attempts[len(c.attempts)-1]
	trusted := c.set.Service.Trusted
	stripHeaders(res.Header, trusted)
	relocateReferences(res.Header, c, a.url)
	if _, degraded := c.gateway.deps.Directory.Health(c.set.Service.ID); degraded != nil {
		res.Header.Set(DegradedHeader, string(degraded.Reason))
	}
	res.Header.Set("Via", joinHeader(res.Header.Values("Via"), viaEntry))
	c.writer.Header().Set("Content-Security-Policy", "sandbox")
	c.writer.remaining = res.ContentLength
	if !c.body.isComplete() && res.StatusCode != http.StatusSwitchingProtocols {
		c.closeAfterResponse()
	}
	c.response = &responseBody{call: c, res: res, from: res.Body, trusted: trusted, status: res.StatusCode}
	switch media, _, _ := mime.ParseMediaType(res.Header.Get("Content-Type")); {
	case res.StatusCode == http.StatusSwitchingProtocols:
		both, ok := res.Body.(io.ReadWriteCloser)
		if !ok || !isRequestedUpgrade(res) {
			c.response = nil
			return errors.New("the connection was upgraded to what was not asked for")
		}
		c.timers.setTotal(c.gateway.cfg.StreamTime)
		c.gateway.metrics.upgraded.Add(1)
		c.writer.begun.Store(true)
		res.Body = &upgradedConn{c.response, both}
		return nil
	case media == "text/event-stream":
		c.timers.setTotal(c.gateway.cfg.StreamTime)
	}
	res.Body = c.response
	return nil
}

// writeFailure answers a call that no instance has answered, or whose answer cannot be passed on.
func writeFailure(w http.ResponseWriter, r *http.Request, err error) {
	c := callOf(r.Context())
	if c.writer.begun.Load() {
		return // of an upgraded connection: there is nobody to tell
	}
	c.writer.refusing = true
	err = c.explainFailure(err)
	if !c.body.closeReader() || context.Cause(c.ctx) != nil {
		c.closeAfterResponse()
	}
	_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(c.gateway.cfg.FirstByteTime))
	problem.Write(w, r, c.gateway.log, err)
}

// explainFailure says to the caller what went wrong. Where instances are stays in the log.
func (c *call) explainFailure(err error) error {
	cause, body := context.Cause(c.ctx), c.body.callerError()
	_, large := errors.AsType[*http.MaxBytesError](body)
	_, said := errors.AsType[*fault.Error](err)
	_, unreached := errors.AsType[errConnect](err)
	switch {
	case large:
		return problem.BodyTooLarge(c.gateway.cfg.BodyBytes)
	case errors.Is(cause, errTotal) || errors.Is(cause, errIdle):
		return errTimeout("The call took too long.", cause)
	case cause != nil:
		return fault.From(context.Canceled)
	case body != nil:
		return problem.BodyUnreadable(body, c.gateway.cfg.BodyTime)
	case said:
		return err
	case unreached:
		return problem.New(http.StatusBadGateway, fault.New(fault.Unavailable, fault.BadGateway, "The service could not be reached.").Because(err))
	case isTimeout(err):
		return errTimeout("The service did not answer in time.", err)
	}
	return problem.New(http.StatusBadGateway, fault.New(fault.Unavailable, fault.BadGateway, "The service gave no answer that could be passed on.").Because(err))
}

func errTimeout(message string, err error) error {
	return fault.New(fault.Timeout, fault.GatewayTimeout, "%s", message).Because(err)
}

// finish ends the call, however it went, and tells everybody who counts.
func (c *call) finish() {
	c.timers.stop()
	how := c.reportOutcome()
	c.cancel(nil)
	if all := c.body.closeReader(); !all {
		// Somebody may be stuck in reading the rest. The server would interrupt that, forget the
		// deadline, and wait for the rest itself.
		if http.NewResponseController(c.writer).SetReadDeadline(time.Now()) == nil {
			c.body.awaitReader()
		}
	}
	c.gateway.semaphore.release(c.callerID)
	c.gateway.metrics.recordOutcome(how)
	attrs := []slog.Attr{slog.String("service", c.target.service), slog.Int("attempts", len(c.attempts)), slog.String("outcome", how)}
	if n := len(c.attempts); n > 0 {
		attrs = append(attrs, slog.String("instance", c.attempts[n-1].instance.InstanceID))
	}
	requestlog.Note(c.ctx, attrs...)
}

// How calls end, in metrics and the access log.
const (
	outcomeOK        = "ok"        // the caller has the answer of an instance
	outcomeFailed    = "failed"    // there was no answer of an instance, and the caller was told so
	outcomeCut       = "cut"       // the answer broke off after it had begun
	outcomeCancelled = "cancelled" // the caller left
)

// reportOutcome finds out how the call ended, and tells the balance of its last attempt.
func (c *call) reportOutcome() string {
	cause := context.Cause(c.ctx)
	late := errors.Is(cause, errIdle) || errors.Is(cause, errTotal)
	gone := !late && (c.request.Context().Err() != nil || c.writer.callerLost.Load())
	if c.response == nil {
		for _, a := range c.attempts {
			a.report(false) // if it has not ended: its answer could not be passed on
		}
		if gone {
			return outcomeCancelled
		}
		return outcomeFailed
	}
	a, how := c.attempts[len(c.attempts)-1], c.response
	switch {
	case how.whole || how.status == http.StatusSwitchingProtocols:
		a.report(!isBusy(how.status))
		return outcomeOK
	case how.waiting.Load() && c.instanceStalled(), how.err != nil && cause == nil:
		a.report(false)
		return outcomeCut
	}
	a.release()
	if gone {
		return outcomeCancelled
	}
	return outcomeCut
}

// responseBody is the body of an instance's answer on its way to the caller.
type responseBody struct {
	call    *call
	res     *http.Response
	from    io.ReadCloser
	trusted bool
	status  int
	waiting atomic.Bool // for the instance
	whole   bool
	err     error
}

// Read implements io.Reader.
func (a *responseBody) Read(p []byte) (int, error) {
	a.waiting.Store(true)
	n, err := a.from.Read(p)
	if err == nil { // else it shows still who kept the call waiting to its end
		a.waiting.Store(false)
	}
	a.call.timers.recordProgress()
	switch {
	case errors.Is(err, io.EOF):
		a.whole = true
		stripHeaders(a.res.Trailer, a.trusted)
	case err != nil:
		a.err = err
	}
	return n, err
}

// Close implements io.Closer.
func (a *responseBody) Close() error { return a.from.Close() }

// upgradedConn is a connection to an instance that speaks another protocol now.
type upgradedConn struct {
	*responseBody
	both io.ReadWriteCloser
}

// Write implements io.Writer.
func (u *upgradedConn) Write(p []byte) (int, error) {
	u.call.timers.recordProgress()
	return u.both.Write(p)
}

// CloseWrite tells the instance that the caller will send nothing more.
func (u *upgradedConn) CloseWrite() error {
	if half, ok := u.both.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return errors.New("the connection closes as a whole")
}

// responseWriter sends everything on at once, and notes whether an answer has begun and
// whether the caller is lost.
type responseWriter struct {
	http.ResponseWriter

	begun      atomic.Bool // the response of an instance, or an upgraded connection
	expired    atomic.Bool // the call took too long
	callerLost atomic.Bool
	refusing   bool  // what is written is a problem document
	remaining  int64 // bytes of the answer that are to come; below 0 if that is not known
}

// WriteHeader implements http.ResponseWriter. Of an answer whose length is not known nobody can
// tell when more of it comes, so its header goes on alone.
func (w *responseWriter) WriteHeader(code int) {
	if !w.refusing {
		w.begun.Store(true)
		if w.expired.Load() { // while begun was not set yet, so that expire has not done this
			_ = http.NewResponseController(w.ResponseWriter).SetWriteDeadline(time.Now())
		}
	}
	w.ResponseWriter.WriteHeader(code)
	if w.remaining < 0 {
		w.flush()
	}
}

// Write implements io.Writer. What is not the last of an answer does not wait for the rest; if its
// length is not known the proxy sees to that.
func (w *responseWriter) Write(p []byte) (int, error) {
	n, err := w.ResponseWriter.Write(p)
	if err != nil {
		w.callerLost.Store(true)
		return n, err
	}
	if w.remaining > 0 {
		if w.remaining -= int64(n); w.remaining > 0 {
			w.flush()
		}
	}
	return n, nil
}

func (w *responseWriter) flush() { _ = http.NewResponseController(w.ResponseWriter).Flush() } // what fails here fails the next write

// Unwrap lets http.ResponseController find the connection.
func (w *responseWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }
