package streamtest

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
)

// The headers of requests for event streams.
var (
	AcceptEvents     = map[string]string{"Accept": "text/event-stream"}
	JSONAcceptEvents = map[string]string{"Accept": "text/event-stream", "Content-Type": "application/json"}
)

// Request sends a request and returns the answer with its head read. Its body is a Body.
func (e *Env) Request(method, target string, headers map[string]string, body string) *http.Response {
	e.T.Helper()
	conn, err := e.Listener.Dial()
	if err != nil {
		e.T.Fatal(err)
	}
	r, err := http.NewRequestWithContext(e.T.Context(), method, "http://api.example"+target, strings.NewReader(body))
	if err != nil {
		e.T.Fatal(err)
	}
	for name, value := range headers {
		r.Header.Set(name, value)
	}
	go r.Write(conn) //nolint:errcheck // the answer shows whether it was sent
	resp, err := http.ReadResponse(bufio.NewReader(conn), r)
	if err != nil {
		e.T.Fatal(err)
	}
	resp.Body = Body{resp.Body, conn}
	return resp
}

// Body is the body of an answer, which closes with its connection.
type Body struct {
	io.ReadCloser
	Conn net.Conn
}

// Close closes the connection.
func (b Body) Close() error { return b.Conn.Close() }

// OpenEvents opens an event stream and returns its body after the first comment.
func (e *Env) OpenEvents(target string, headers map[string]string) *bufio.Reader {
	e.T.Helper()
	body := bufio.NewReader(e.Request(http.MethodGet, target, headers, "").Body)
	e.WantEvents(body, ":")
	return body
}

var errStreamEnded = errors.New("the stream has ended")

// ReadEvent returns the next block of an event stream, without its empty line.
func ReadEvent(r *bufio.Reader) (string, error) {
	var block strings.Builder
	for {
		line, err := r.ReadString('\n')
		if err != nil {
			return block.String(), errStreamEnded
		}
		if line == "\n" {
			return strings.TrimSuffix(block.String(), "\n"), nil
		}
		block.WriteString(line)
	}
}

// WantEvents expects the next blocks of an event stream.
func (e *Env) WantEvents(body *bufio.Reader, blocks ...string) {
	e.T.Helper()
	for _, want := range blocks {
		if got, err := ReadEvent(body); err != nil || got != want {
			e.T.Fatalf("the stream has %q, %v, want %q", got, err, want)
		}
	}
}

// Reserve makes a reservation and returns its token.
func (e *Env) Reserve(headers map[string]string) string {
	e.T.Helper()
	resp := e.Request(http.MethodPut, "/graphql", headers, "")
	token, err := io.ReadAll(resp.Body)
	if err != nil || resp.StatusCode != http.StatusCreated || len(token) < 20 {
		e.T.Fatalf("a reservation: status %d, token %q, %v", resp.StatusCode, token, err)
	}
	return string(token)
}

// StartOperation starts an operation of a single connection and returns the status.
func (e *Env) StartOperation(token, id, query string) int {
	e.T.Helper()
	headers := map[string]string{"Content-Type": "application/json", "X-GraphQL-Event-Stream-Token": token}
	resp := e.Request(http.MethodPost, "/graphql", headers, fmt.Sprintf(`{"query":%q,"extensions":{"operationId":%q}}`, query, id))
	_ = resp.Body.Close()
	return resp.StatusCode
}
