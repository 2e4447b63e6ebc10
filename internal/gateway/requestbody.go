package gateway

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"sync"
	"time"

	"github.com/backplane-dev/backplane/internal/membudget"
	"github.com/backplane-dev/backplane/internal/problem"
)

// requestBody is the body of a caller's request. A small one is buffered before the call begins, so that
// an instance does not wait for a slow caller and another attempt can send it again. Any other is
// streamed, once.
type requestBody struct {
	buffered []byte // the whole body
	limit    int64
	onRead   func()

	reading sync.Mutex // held during a read
	mu      sync.Mutex // not held during a read
	from    io.Reader  // nil if there is no body, or it is buffered
	begun   bool
	done    bool // read to its end
	closed  bool
	read    int64
	err     error // the caller's fault
}

var errReadAfterEnd = errors.New("body read after the end of the call")

// A buffer takes its memory from the grant of the request: a buffer that grows is up to twice as large as what is
// in it. The first bytes are free, as those of all request bodies.
const (
	bufferFactor = 2
	freeBytes    = 4 << 10
)

// readBody buffers a small body of a request and leaves any other to be streamed, and so one for whose buffer
// its caller, or the node, has no memory to spare.
func (g *Gateway) readBody(w http.ResponseWriter, r *http.Request) (*requestBody, error) {
	b := &requestBody{limit: g.cfg.BodyBytes, onRead: func() {}}
	switch {
	case r.ContentLength == 0 || r.Body == nil || r.Body == http.NoBody:
		return b, nil
	case r.ContentLength > g.cfg.BodyBytes:
		w.Header().Set("Connection", "close") // the rest of the body is not worth reading
		return nil, problem.BodyTooLarge(g.cfg.BodyBytes)
	case r.ContentLength < 0 || r.ContentLength > g.cfg.BufferedBytes, !membudget.GrantFrom(r.Context()).TryTake(bufferFactor * (r.ContentLength - freeBytes)):
		b.from = r.Body
		return b, nil
	}
	ctl := http.NewResponseController(w)
	// A response writer of a test has no deadlines, and no slow caller either.
	_ = ctl.SetReadDeadline(time.Now().Add(g.cfg.BodyTime))
	var kept bytes.Buffer // grows with what arrives, not with what was announced
	if _, err := kept.ReadFrom(r.Body); err != nil {
		w.Header().Set("Connection", "close")
		return nil, problem.BodyUnreadable(err, g.cfg.BodyTime)
	}
	_ = ctl.SetReadDeadline(time.Time{})
	b.buffered = kept.Bytes()
	return b, nil
}

// isReplayable reports whether the whole body can be sent once more.
func (b *requestBody) isReplayable() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.from == nil || !b.begun
}

// attachTo makes b the body of an attempt's request.
func (b *requestBody) attachTo(req *http.Request) {
	switch {
	case b.buffered != nil:
		req.ContentLength = int64(len(b.buffered))
		req.GetBody = func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(b.buffered)), nil }
		req.Body, _ = req.GetBody()
	case b.from != nil:
		req.Body = io.NopCloser(b) // a failed attempt must not close what the next one sends
	default:
		req.Body, req.ContentLength = nil, 0
	}
}

// Read implements io.Reader for the one attempt that a body is streamed to.
func (b *requestBody) Read(p []byte) (int, error) {
	b.reading.Lock()
	defer b.reading.Unlock()
	b.mu.Lock()
	if b.closed {
		b.mu.Unlock()
		return 0, errReadAfterEnd
	}
	b.begun = true
	b.mu.Unlock()
	n, err := b.from.Read(p)
	b.onRead()
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.read += int64(n); b.read > b.limit {
		err = &http.MaxBytesError{Limit: b.limit}
	}
	switch {
	case errors.Is(err, io.EOF):
		b.done = true
	case err != nil && b.err == nil:
		b.err = err
	}
	return n, err
}

// closeReader makes later reads fail. It reports whether the body was read to its end.
func (b *requestBody) closeReader() (complete bool) {
	b.mu.Lock()
	b.closed = true
	b.mu.Unlock()
	return b.isComplete()
}

// awaitReader waits for a read under way. After closeReader none begins.
func (b *requestBody) awaitReader() {
	b.reading.Lock()
	defer b.reading.Unlock()
}

// isComplete reports whether the caller has sent all of its request.
func (b *requestBody) isComplete() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.from == nil || b.done
}

// callerError returns the error of receiving the body from the caller, nil if there was none.
func (b *requestBody) callerError() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.err
}
