package gateway

import (
	"context"
	"errors"
	"io"
	"mime"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/backplane-dev/backplane/internal/fault"
	"github.com/backplane-dev/backplane/internal/problem"
)

// filterResponse turns an instance's response into the one that the caller receives.
func filterResponse(res *http.Response) error {
	c := callOf(res.Request.Context())
	a := c.attempts[len(c.attempts)-1]
	stripHeaders(res.Header, a.trusted)
	stripHeaders(res.Trailer, a.trusted) // of which the names are announced now
	if _, ok := res.Header["Content-Type"]; !ok {
		c.writer.Header()["Content-Type"] = nil // keeps the server from guessing one
	}
	relocateReferences(res.Header, c, a.url, a.trusted)
	if _, degraded := c.gateway.deps.Directory.Health(c.set.Service.ID); degraded != nil {
		res.Header.Set(DegradedHeader, string(degraded.Reason))
	}
	res.Header.Set("Via", joinHeader(res.Header.Values("Via"), viaEntry))
	c.writer.Header().Set("Content-Security-Policy", "sandbox")
	c.writer.remaining = res.ContentLength
	if !c.body.isComplete() && res.StatusCode != http.StatusSwitchingProtocols {
		c.closeAfterResponse()
	}
	c.response = &responseBody{call: c, res: res, from: res.Body, trusted: a.trusted, status: res.StatusCode}
	switch media, _, _ := mime.ParseMediaType(res.Header.Get("Content-Type")); {
	case res.StatusCode == http.StatusSwitchingProtocols:
		both, ok := res.Body.(io.ReadWriteCloser)
		if !ok || !isRequestedUpgrade(res) {
			c.response = nil
			return errors.New("the instance upgraded the connection without being asked")
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

// writeFailure answers a call that has no response that can be forwarded.
func writeFailure(w http.ResponseWriter, r *http.Request, err error) {
	c := callOf(r.Context())
	if c.writer.begun.Load() {
		return // an upgraded connection takes no problem document
	}
	c.writer.refusing = true
	err = c.explainFailure(err)
	if !c.body.closeReader() || context.Cause(c.ctx) != nil {
		c.closeAfterResponse()
	}
	_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(c.gateway.cfg.FirstByteTime))
	problem.Write(w, r, c.gateway.log, err)
}

// explainFailure returns the error that the caller sees. Addresses of instances go to the log only.
func (c *call) explainFailure(err error) error {
	cause, body := context.Cause(c.ctx), c.body.callerError()
	_, tooLarge := errors.AsType[*http.MaxBytesError](body)
	_, isFault := errors.AsType[*fault.Error](err)
	_, notConnected := errors.AsType[errConnect](err)
	switch {
	case tooLarge:
		return problem.BodyTooLarge(c.gateway.cfg.BodyBytes)
	case errors.Is(cause, errTotal) || errors.Is(cause, errIdle):
		return errTimeout("The call took too long.", cause)
	case isCredentialEnd(cause):
		return cause
	case cause != nil:
		return fault.From(context.Canceled)
	case body != nil:
		return problem.BodyUnreadable(body, c.gateway.cfg.BodyTime)
	case isFault:
		return err
	case notConnected:
		return problem.New(http.StatusBadGateway, fault.New(fault.BadGateway, "The service could not be reached.").Because(err))
	case isTimeout(err):
		return errTimeout("The service did not answer in time.", err)
	}
	return problem.New(http.StatusBadGateway, fault.New(fault.BadGateway, "The service gave no valid response.").Because(err))
}

func errTimeout(message string, err error) error {
	return fault.New(fault.GatewayTimeout, "%s", message).Because(err)
}

// isRequestedUpgrade reports whether the response upgrades to the protocol that the forwarded request
// named.
func isRequestedUpgrade(res *http.Response) bool {
	requested := res.Request.Header.Get("Upgrade")
	names := strings.FieldsFunc(strings.Join(res.Header.Values("Connection"), ","), func(r rune) bool { return r == ',' || r == ' ' || r == '\t' })
	return requested != "" && strings.EqualFold(res.Header.Get("Upgrade"), requested) &&
		slices.ContainsFunc(names, func(name string) bool { return strings.EqualFold(name, "upgrade") })
}

// responseBody is the body of an instance's response on its way to the caller.
type responseBody struct {
	call     *call
	res      *http.Response
	from     io.ReadCloser
	trusted  bool
	status   int
	waiting  atomic.Bool // a read from the instance is under way, or was the last
	complete bool
	err      error
}

// Read implements io.Reader.
func (a *responseBody) Read(p []byte) (int, error) {
	a.waiting.Store(true)
	n, err := a.from.Read(p)
	if err == nil { // else it stays set, and shows which side kept the call waiting to its end
		a.waiting.Store(false)
	}
	a.call.timers.recordProgress()
	switch {
	case errors.Is(err, io.EOF):
		a.complete = true
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

// CloseWrite half-closes the connection: the caller sends nothing more.
func (u *upgradedConn) CloseWrite() error {
	if half, ok := u.both.(interface{ CloseWrite() error }); ok {
		return half.CloseWrite()
	}
	return errors.New("the connection cannot be half-closed")
}

// responseWriter flushes what it writes at once. It records whether a response has begun and whether the
// caller is gone.
type responseWriter struct {
	http.ResponseWriter

	begun      atomic.Bool // an instance's response, or an upgraded connection
	expired    atomic.Bool // the call has reached a time limit
	callerLost atomic.Bool // a write failed
	refusing   bool        // the response is a problem document
	remaining  int64       // bytes of the response still to come; negative if unknown
}

// WriteHeader implements http.ResponseWriter. If the length of the response is unknown, more of it may
// come at any time, so the header is flushed alone.
func (w *responseWriter) WriteHeader(code int) {
	if !w.refusing {
		w.begun.Store(true)
		if w.expired.Load() { // expire did not see begun, so it has not set the deadline
			_ = http.NewResponseController(w.ResponseWriter).SetWriteDeadline(time.Now())
		}
	}
	w.ResponseWriter.WriteHeader(code)
	if w.remaining < 0 {
		w.flush()
	}
}

// Write implements io.Writer. Unless it is the last part of the response it is flushed; if the length is
// unknown, the reverse proxy flushes.
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

func (w *responseWriter) flush() { _ = http.NewResponseController(w.ResponseWriter).Flush() } // an error here also fails the next write

// Unwrap lets http.ResponseController find the connection.
func (w *responseWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }
