package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// connection is a keep-alive HTTP connection of a load generator: it costs little, as it shares the
// machine with what is measured.
type connection struct {
	conn net.Conn
	in   *bufio.Reader
	out  []byte
	body []byte
}

func dial(ctx context.Context, addr string) (*connection, error) {
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	return &connection{conn: conn, in: bufio.NewReaderSize(conn, 32<<10)}, nil
}

// requestTime bounds a request, so that a server that hangs ends the run.
const requestTime = 30 * time.Second

// send sends a request and returns the status and the body, which is valid until the next call.
func (c *connection) send(r request, token string) (status int, body []byte, err error) {
	c.out = append(c.out[:0], r.method...)
	c.out = append(append(append(c.out, ' '), r.path...), " HTTP/1.1\r\nHost: localhost\r\nAccept: application/json\r\n"...)
	if token != "" {
		c.out = append(append(append(c.out, "Authorization: Bearer "...), token...), "\r\n"...)
	}
	if r.body != "" {
		c.out = append(c.out, "Content-Type: application/json\r\nContent-Length: "...)
		c.out = append(strconv.AppendInt(c.out, int64(len(r.body)), 10), "\r\n"...)
	}
	c.out = append(append(c.out, "\r\n"...), r.body...)
	if err := c.conn.SetDeadline(time.Now().Add(requestTime)); err != nil {
		return 0, nil, err
	}
	if _, err := c.conn.Write(c.out); err != nil {
		return 0, nil, err
	}
	return c.receive()
}

func (c *connection) receive() (status int, body []byte, err error) {
	line, err := c.in.ReadSlice('\n')
	if err != nil {
		return 0, nil, err
	}
	if len(line) < 12 {
		return 0, nil, fmt.Errorf("the server answered %q", line)
	}
	if status, err = strconv.Atoi(string(line[9:12])); err != nil {
		return 0, nil, fmt.Errorf("the server answered %q", line)
	}
	length := -1
	for {
		if line, err = c.in.ReadSlice('\n'); err != nil {
			return 0, nil, err
		}
		if len(line) == 2 {
			break
		}
		if name, value, _ := bytes.Cut(line, []byte(":")); bytes.EqualFold(name, []byte("Content-Length")) {
			if length, err = strconv.Atoi(string(bytes.TrimSpace(value))); err != nil {
				return 0, nil, err
			}
		}
	}
	c.body = c.body[:0]
	if length >= 0 {
		c.body, err = c.readBody(c.body, length)
		return status, c.body, err
	}
	err = c.readChunks()
	return status, c.body, err
}

func (c *connection) readBody(into []byte, n int) ([]byte, error) {
	start := len(into)
	into = slices.Grow(into, n)[:start+n]
	_, err := io.ReadFull(c.in, into[start:])
	return into, err
}

func (c *connection) readChunks() error {
	for {
		line, err := c.in.ReadSlice('\n')
		if err != nil {
			return err
		}
		n, err := strconv.ParseInt(strings.TrimSpace(string(line)), 16, 32)
		if err != nil {
			return err
		}
		if c.body, err = c.readBody(c.body, int(n)); err != nil {
			return err
		}
		if _, err := c.in.Discard(2); err != nil || n == 0 {
			return err
		}
	}
}

// load sends requests to a target over so many connections. next returns the next request, and false
// when there are no more. It returns how long each took.
func (t *target) load(ctx context.Context, connections int, w *workload, next func() (request, bool)) (took []time.Duration, err error) {
	var mu sync.Mutex
	var all sync.WaitGroup
	for i := range connections {
		all.Go(func() {
			part, e := t.loadOver(ctx, t.token(i), w, next)
			mu.Lock()
			defer mu.Unlock()
			took = append(took, part...)
			err = errors.Join(err, e)
		})
	}
	all.Wait()
	slices.Sort(took)
	return took, err
}

// loadOver is load over one connection.
func (t *target) loadOver(ctx context.Context, token string, w *workload, next func() (request, bool)) (took []time.Duration, err error) {
	c, err := dial(ctx, t.addr)
	if err != nil {
		return nil, err
	}
	defer c.conn.Close()
	for r, ok := next(); ok && ctx.Err() == nil; r, ok = next() {
		start := time.Now()
		status, body, err := c.send(r, token)
		took = append(took, time.Since(start))
		if err != nil {
			return took, err
		}
		if status != w.status || !bytes.Contains(body[:min(len(body), 400)], []byte(w.want)) {
			return took, fmt.Errorf("%s %s: the server answered %d %.300s", r.method, r.path, status, body)
		}
	}
	return took, ctx.Err()
}

// measureOnce measures a workload on a target; ok is false if the target does not have it.
func (s *setup) measureOnce(ctx context.Context, t *target, w *workload) (m measurement, ok bool, err error) {
	if err := s.signInAll(ctx, t); err != nil {
		return m, false, err
	}
	nth, err := s.requestsOf(ctx, t, w)
	if err != nil || nth == nil {
		return m, false, err
	}
	passes := max(w.repeats, 4*s.options.connections)
	var n atomic.Int64
	_, err = t.load(ctx, s.options.connections, w, func() (request, bool) { i := int(n.Add(1)); return nth(i), i <= passes })
	if err != nil {
		return m, false, fmt.Errorf("warm up: %w", err)
	}
	before, err := s.readUsage(t)
	if err != nil {
		return m, false, err
	}
	start := time.Now()
	end := start.Add(s.options.time)
	took, err := t.load(ctx, s.options.connections, w, func() (request, bool) { return nth(int(n.Add(1))), time.Now().Before(end) })
	if err != nil {
		return m, false, err
	}
	wall := time.Since(start)
	after, err := s.readUsage(t)
	if err != nil || len(took) == 0 {
		return m, false, errors.Join(err, errors.New("no request was answered"))
	}
	each := func(d time.Duration) float64 { return float64(d) / float64(time.Microsecond) / float64(len(took)) }
	return measurement{
		PerSecond: float64(len(took)) / wall.Seconds(),
		P50:       took[len(took)/2].Seconds() * 1e3, P99: took[len(took)*99/100].Seconds() * 1e3,
		Server: each(after.server - before.server), Database: each(after.database - before.database), MiB: float64(after.memory) / (1 << 20),
	}, true, nil
}
