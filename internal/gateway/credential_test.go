package gateway

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/backplane-dev/backplane/internal/auth"
	"github.com/backplane-dev/backplane/internal/fault"
	"github.com/backplane-dev/backplane/internal/registry"
	"github.com/backplane-dev/backplane/internal/testenv"
	"github.com/backplane-dev/backplane/internal/validate"
)

func TestGateway_ends_a_call_with_the_credential_of_its_caller(t *testing.T) {
	t.Parallel()
	flood := bytes.Repeat([]byte("x"), 1<<20)
	for name, tt := range map[string]struct {
		instance http.HandlerFunc
		status   int
		upgrade  string
	}{
		"before the response": {func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }, http.StatusUnauthorized, ""},
		"while its caller takes nothing of the response": {func(w http.ResponseWriter, _ *http.Request) {
			for {
				if _, err := w.Write(flood); err != nil {
					return
				}
			}
		}, http.StatusOK, ""},
		"while its caller takes nothing of an upgraded connection": {func(w http.ResponseWriter, _ *http.Request) {
			conn, _, err := w.(http.Hijacker).Hijack()
			if err != nil {
				return
			}
			defer conn.Close()
			fmt.Fprint(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: mine\r\n\r\n")
			for {
				if _, err := conn.Write(flood); err != nil {
					return
				}
			}
		}, http.StatusSwitchingProtocols, "Connection: Upgrade\r\nUpgrade: mine\r\n"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newFixture(t, Config{})
			w.registerService(registry.ServiceInput{Name: "echo"}, registry.ServiceChange{}, startServer(t, tt.instance))
			ended := make(chan struct{})
			var end context.CancelCauseFunc
			begun := make(chan struct{})
			front := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
				defer close(ended)
				var ctx context.Context
				ctx, end = context.WithCancelCause(r.Context())
				defer end(nil)
				close(begun)
				w.serve(rw, r.WithContext(ctx))
			}))
			t.Cleanup(front.Close)
			w.front = front
			l := w.dialRaw()
			l.write("GET /gateway/echo/ HTTP/1.1\r\nHost: x\r\n" + tt.upgrade + "\r\n")
			<-begun
			if tt.status != http.StatusUnauthorized { // the call has a response, which fills the buffers of the connection
				if line, err := l.from.ReadString('\n'); err != nil || line != fmt.Sprintf("HTTP/1.1 %d %s\r\n", tt.status, http.StatusText(tt.status)) {
					t.Fatalf("the response begins with %q, %v", line, err)
				}
				<-time.After(100 * time.Millisecond) // it blocks by now; it ends in either case
			}
			end(fault.New(fault.Unauthenticated, "The credential is no longer valid."))
			select {
			case <-ended:
			case <-time.After(callLimit):
				t.Fatal("the call goes on")
			}
			if tt.status == http.StatusUnauthorized {
				if got := l.readResponse(); got.status != tt.status {
					t.Errorf("the caller gets %+v", got)
				}
			}
			if _, err := io.Copy(io.Discard, l.from); errors.Is(err, os.ErrDeadlineExceeded) {
				t.Error("the caller's connection is still open")
			}
		})
	}
}

func TestGateway_ends_anonymous_calls_once_the_service_is_no_longer_public(t *testing.T) {
	t.Parallel()
	events := func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		fmt.Fprint(w, "data: 1\n\n")
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done()
	}
	narrow := &auth.Principal{UserID: "usr_ada", Roles: []auth.Role{auth.Customer}, Credential: auth.Credential{Kind: auth.KindAPIKey, ID: "key_1", Scopes: []auth.Scope{auth.OrdersRead}}}
	for name, tt := range map[string]struct {
		caller *auth.Principal
		ends   bool
	}{"anonymous": {nil, true}, "an API key without a scope for services": {narrow, true}, "a session": {ada, false}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newFixture(t, Config{})
			w.registerService(registry.ServiceInput{Name: "echo"}, publicService(), startServer(t, events))
			w.registerService(registry.ServiceInput{Name: "other"}, publicService(), startServer(t, events))
			w.setCaller(tt.caller)
			ended, other := make(chan error, 1), w.dialRaw()
			l := w.dialRaw()
			for conn, service := range map[*rawConn]string{l: "echo", other: "other"} {
				conn.write("GET /gateway/" + service + "/ HTTP/1.1\r\nHost: x\r\n\r\n")
				if line, err := conn.from.ReadString('\n'); err != nil || !strings.Contains(line, "200") {
					t.Fatalf("the response begins with %q, %v", line, err)
				}
			}
			s := *w.services["echo"]
			if err := s.Apply(registry.ServiceChange{Public: validate.Of(false)}, time.Now()); err != nil {
				t.Fatal(err)
			}
			w.directory.ApplyService(&s)
			go func() { _, err := io.Copy(io.Discard, l.from); ended <- err }()
			if tt.ends {
				if err := <-ended; errors.Is(err, os.ErrDeadlineExceeded) {
					t.Error("the call goes on")
				}
				testenv.Eventually(t, "the other call alone is open", func() bool { return w.gateway.Stats().InFlight == 1 })
				return
			}
			if n := w.gateway.Stats().InFlight; n != 2 {
				t.Errorf("%d calls are open, want both", n)
			}
		})
	}
}
