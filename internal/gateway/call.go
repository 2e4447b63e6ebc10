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
	g          *Gateway
	in         *http.Request
	ctx        context.Context //nolint:containedctx // the call is what this context is of
	cancel     context.CancelCauseFunc
	set        *registry.Set
	target     target
	who        string // whose place it takes
	token      string // that the service gets; empty if there is nobody to be named
	key        string // of CONSISTENT_HASH
	idempotent bool
	body       *body
	writer     *writer
	watch      *watch
	attempts   []*attempt
	answer     *answer // of the last attempt; nil if there is none
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
	if err := allowed(r); err != nil {
		return nil, err
	}
	set, err := g.deps.Directory.ForCall(r.Context(), t.service)
	if err != nil {
		return nil, err
	}
	c := &call{g: g, in: r, set: set, target: t, idempotent: isIdempotent(r), writer: &writer{ResponseWriter: w}}
	if err := c.name(r); err != nil {
		return nil, err
	}
	if err := g.places.take(c.who); err != nil {
		return nil, err
	}
	if c.body, err = g.readBody(w, r); err != nil {
		g.places.leave(c.who)
		return nil, err
	}
	g.budgets.called(set.Service.ID, time.Now())
	c.begin(r.Context())
	return c, nil
}

// name finds out who is calling: for the place, the balance and the service.
func (c *call) name(r *http.Request) (err error) {
	caller := auth.LastKnown(r.Context())
	if c.who = auth.ClientFrom(r.Context()).Address; caller != nil {
		c.who = string(caller.UserID) // with whichever key
	}
	if c.key = r.Header.Get(KeyHeader); len(c.key) > registry.MaxPickKey {
		return fault.New(fault.Invalid, fault.BadRequest, "%s must be at most %d bytes long.", KeyHeader, registry.MaxPickKey)
	}
	if c.key == "" {
		c.key = c.who
	}
	if caller != nil && !c.set.Service.Trusted {
		c.token, err = c.g.deps.Tokens(r.Context(), caller, c.target.service)
	}
	return err
}

// begin starts what bounds the call.
func (c *call) begin(ctx context.Context) {
	c.ctx, c.cancel = context.WithCancelCause(context.WithValue(ctx, callKey{}, c))
	// A former request of the connection may have left its deadlines.
	_ = c.deadlines(time.Time{})
	_ = http.NewResponseController(c.writer).EnableFullDuplex() // or the whole body would be read before an answer is sent
	c.watch = newWatch(c.g.cfg.IdleTime, c.g.cfg.TotalTime, c.expire)
	c.body.touch = c.watch.touch
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

// deadlines sets both deadlines of the caller's connection. In tests there may be none.
func (c *call) deadlines(at time.Time) error {
	ctl := http.NewResponseController(c.writer)
	return errors.Join(ctl.SetReadDeadline(at), ctl.SetWriteDeadline(at))
}

// hangUp makes the answer the last one of the caller's connection. That has to be whenever a part
// of the body may be left in it, which would be taken for the next request, and after expire, since
// for the server a connection whose deadline passed is lost.
func (c *call) hangUp() { c.writer.Header().Set("Connection", "close") }

// allowed refuses requests that are not for passing on.
func allowed(r *http.Request) error {
	switch {
	case r.Method == http.MethodTrace || r.Method == http.MethodConnect:
		return &problem.Error{Status: http.StatusMethodNotAllowed, Allow: "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS",
			Fault: fault.New(fault.Invalid, fault.BadRequest, "The gateway does not pass %s on.", r.Method)}
	case loops(r):
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

// isAskedFor reports whether the answer changes to the protocol that its request, as it went on,
// named.
func isAskedFor(res *http.Response) bool {
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

// answered makes the answer of an instance what the caller gets.
func answered(res *http.Response) error {
	c := callOf(res.Request.Context())
	a := c.attempts[len(c.attempts)-1]
	trusted := c.set.Service.Trusted
	clean(res.Header, trusted)
	relocate(res.Header, c, a.url)
	if _, degraded := c.g.deps.Directory.Health(c.set.Service.ID); degraded != nil {
		res.Header.Set(DegradedHeader, string(degraded.Reason))
	}
	res.Header.Set("Via", joined(res.Header.Values("Via"), viaUs))
	c.writer.Header().Set("Content-Security-Policy", "sandbox")
	c.writer.left = res.ContentLength
	if !c.body.sent() && res.StatusCode != http.StatusSwitchingProtocols {
		c.hangUp()
	}
	c.answer = &answer{c: c, res: res, from: res.Body, trusted: trusted, status: res.StatusCode}
	switch media, _, _ := mime.ParseMediaType(res.Header.Get("Content-Type")); {
	case res.StatusCode == http.StatusSwitchingProtocols:
		both, ok := res.Body.(io.ReadWriteCloser)
		if !ok || !isAskedFor(res) {
			c.answer = nil
			return errors.New("the connection was upgraded to what was not asked for")
		}
		c.watch.limit(c.g.cfg.StreamTime)
		c.g.counts.upgraded.Add(1)
		c.writer.begun.Store(true)
		res.Body = &upgraded{c.answer, both}
		return nil
	case media == "text/event-stream":
		c.watch.limit(c.g.cfg.StreamTime)
	}
	res.Body = c.answer
	return nil
}

// refused answers a call that no instance has answered, or whose answer cannot be passed on.
func refused(w http.ResponseWriter, r *http.Request, err error) {
	c := callOf(r.Context())
	if c.writer.begun.Load() {
		return // of an upgraded connection: there is nobody to tell
	}
	c.writer.refusing = true
	err = c.explain(err)
	if !c.body.close() || context.Cause(c.ctx) != nil {
		c.hangUp()
	}
	_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(c.g.cfg.FirstByteTime))
	problem.Write(w, r, c.g.log, err)
}

// explain says to the caller what went wrong. Where instances are stays in the log.
func (c *call) explain(err error) error {
	cause, body := context.Cause(c.ctx), c.body.failed()
	_, large := errors.AsType[*http.MaxBytesError](body)
	_, said := errors.AsType[*fault.Error](err)
	_, unreached := errors.AsType[errConnect](err)
	switch {
	case large:
		return problem.BodyTooLarge(c.g.cfg.BodyBytes)
	case errors.Is(cause, errTotal) || errors.Is(cause, errIdle):
		return errSlow("The call took too long.", cause)
	case cause != nil:
		return fault.From(context.Canceled)
	case body != nil:
		return problem.BodyUnreadable(body, c.g.cfg.BodyTime)
	case said:
		return err
	case unreached:
		return problem.New(http.StatusBadGateway, fault.New(fault.Unavailable, fault.BadGateway, "The service could not be reached.").Because(err))
	case isTimeout(err):
		return errSlow("The service did not answer in time.", err)
	}
	return problem.New(http.StatusBadGateway, fault.New(fault.Unavailable, fault.BadGateway, "The service gave no answer that could be passed on.").Because(err))
}

func errSlow(message string, err error) error {
	return fault.New(fault.Timeout, fault.GatewayTimeout, "%s", message).Because(err)
}

// end ends the call, however it went, and tells everybody who counts.
func (c *call) end() {
	c.watch.stop()
	how := c.outcome()
	c.cancel(nil)
	if all := c.body.close(); !all {
		// Somebody may be stuck in reading the rest. The server would interrupt that, forget the
		// deadline, and wait for the rest itself.
		if http.NewResponseController(c.writer).SetReadDeadline(time.Now()) == nil {
			c.body.wait()
		}
	}
	c.g.places.leave(c.who)
	c.g.counts.ended(how)
	attrs := []slog.Attr{slog.String("service", c.target.service), slog.Int("attempts", len(c.attempts)), slog.String("outcome", how)}
	if n := len(c.attempts); n > 0 {
		attrs = append(attrs, slog.String("instance", c.attempts[n-1].instance.InstanceID))
	}
	requestlog.Note(c.ctx, attrs...)
}

// How calls end, in metrics and the access log.
const (
	endOK        = "ok"        // the caller has the answer of an instance
	endFailed    = "failed"    // there was no answer of an instance, and the caller was told so
	endCut       = "cut"       // the answer broke off after it had begun
	endCancelled = "cancelled" // the caller left
)

// outcome finds out how the call ended, and tells the balance of its last attempt.
func (c *call) outcome() string {
	cause := context.Cause(c.ctx)
	late := errors.Is(cause, errIdle) || errors.Is(cause, errTotal)
	gone := !late && (c.in.Context().Err() != nil || c.writer.lost.Load())
	if c.answer == nil {
		for _, a := range c.attempts {
			a.done(false) // if it has not ended: its answer could not be passed on
		}
		if gone {
			return endCancelled
		}
		return endFailed
	}
	a, how := c.attempts[len(c.attempts)-1], c.answer
	switch {
	case how.whole || how.status == http.StatusSwitchingProtocols:
		a.done(!isBusy(how.status))
		return endOK
	case how.waiting.Load() && c.keptWaiting(), how.err != nil && cause == nil:
		a.done(false)
		return endCut
	}
	a.release()
	if gone {
		return endCancelled
	}
	return endCut
}

// answer is the body of an instance's answer on its way to the caller.
type answer struct {
	c       *call
	res     *http.Response
	from    io.ReadCloser
	trusted bool
	status  int
	waiting atomic.Bool // for the instance
	whole   bool
	err     error
}

// Read implements io.Reader.
func (a *answer) Read(p []byte) (int, error) {
	a.waiting.Store(true)
	n, err := a.from.Read(p)
	if err == nil { // else it shows still who kept the call waiting to its end
		a.waiting.Store(false)
	}
	a.c.watch.touch()
	switch {
	case errors.Is(err, io.EOF):
		a.whole = true
		clean(a.res.Trailer, a.trusted)
	case err != nil:
		a.err = err
	}
	return n, err
}

// Close implements io.Closer.
func (a *answer) Close() error { return a.from.Close() }

// upgraded is a connection to an instance that speaks another protocol now.
type upgraded struct {
	*answer
	both io.ReadWriteCloser
}

// Write implements io.Writer.
func (u *upgraded) Write(p []byte) (int, error) {
	u.c.watch.touch()
	return u.both.Write(p)
}

// CloseWrite tells the instance that the caller will send nothing more.
func (u *upgraded) CloseWrite() error {
	if half, ok := u.both.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return errors.New("the connection closes as a whole")
}

// writer sends everything on at once, and notes whether an answer has begun and
// whether the caller is lost.
type writer struct {
	http.ResponseWriter

	begun    atomic.Bool // the response of an instance, or an upgraded connection
	expired  atomic.Bool // the call took too long
	lost     atomic.Bool
	refusing bool  // what is written is a problem document
	left     int64 // bytes of the answer that are to come; below 0 if that is not known
}

// WriteHeader implements http.ResponseWriter. Of an answer whose length is not known nobody can
// tell when more of it comes, so its header goes on alone.
func (w *writer) WriteHeader(code int) {
	if !w.refusing {
		w.begun.Store(true)
		if w.expired.Load() { // while begun was not set yet, so that expire has not done this
			_ = http.NewResponseController(w.ResponseWriter).SetWriteDeadline(time.Now())
		}
	}
	w.ResponseWriter.WriteHeader(code)
	if w.left < 0 {
		w.flush()
	}
}

// Write implements io.Writer. What is not the last of an answer does not wait for the rest; if its
// length is not known the proxy sees to that.
func (w *writer) Write(p []byte) (int, error) {
	n, err := w.ResponseWriter.Write(p)
	if err != nil {
		w.lost.Store(true)
		return n, err
	}
	if w.left > 0 {
		if w.left -= int64(n); w.left > 0 {
			w.flush()
		}
	}
	return n, nil
}

func (w *writer) flush() { _ = http.NewResponseController(w.ResponseWriter).Flush() } // what fails here fails the next write

// Unwrap lets http.ResponseController find the connection.
func (w *writer) Unwrap() http.ResponseWriter { return w.ResponseWriter }
