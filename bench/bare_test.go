package bench_test

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"runtime"
	"sync"
	"testing"

	"github.com/coder/websocket"

	"github.com/backplane-dev/backplane/internal/testenv"
)

// bareEnv makes this binary the server to compare with, at the address that it holds.
const bareEnv = "BENCH_BARE_LISTEN"

func TestMain(m *testing.M) {
	if addr := os.Getenv(bareEnv); addr != "" {
		serveBare(addr)
		return
	}
	os.Exit(m.Run())
}

// bare is the least that can be done: whatever is posted is written to all
// sockets, by as many goroutines as there are processors, with the library that
// the server uses.
type bare struct {
	mu      sync.Mutex
	sockets []*websocket.Conn
}

func serveBare(addr string) {
	b := &bare{}
	mux := http.NewServeMux()
	mux.HandleFunc("GET /readyz", func(http.ResponseWriter, *http.Request) {})
	mux.HandleFunc("GET /text", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, shortText) })
	mux.HandleFunc("GET /bulk", sendBulk)
	mux.HandleFunc("GET /graphql", b.join)
	mux.HandleFunc("POST /graphql", b.broadcast)
	ln, err := net.Listen("tcp", addr)
	if err == nil {
		err = http.Serve(ln, mux)
	}
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}

func (b *bare) join(w http.ResponseWriter, r *http.Request) {
	ws, err := websocket.Accept(w, r, &websocket.AcceptOptions{Subprotocols: []string{"graphql-transport-ws"}})
	if err != nil {
		return
	}
	ctx := ws.CloseRead(context.Background())
	b.mu.Lock()
	b.sockets = append(b.sockets, ws)
	b.mu.Unlock()
	<-ctx.Done()
}

func (b *bare) broadcast(_ http.ResponseWriter, r *http.Request) {
	text, err := io.ReadAll(r.Body)
	if err != nil {
		return
	}
	b.mu.Lock() // one after the other, so that each client gets all in one order
	defer b.mu.Unlock()
	var all sync.WaitGroup
	each := (len(b.sockets) + runtime.GOMAXPROCS(0) - 1) / runtime.GOMAXPROCS(0)
	for from := 0; from < len(b.sockets); from += each {
		part := b.sockets[from:min(from+each, len(b.sockets))]
		all.Go(func() {
			for _, ws := range part {
				_ = ws.Write(context.Background(), websocket.MessageText, text) // a client that is lost shows in the count
			}
		})
	}
	all.Wait()
}

// startBare starts the server to compare with as a process and returns where it
// listens, and its process id.
func startBare(b *testing.B) (addr string, pid int) {
	b.Helper()
	addr = fmt.Sprint("127.0.0.1:", testenv.FreePort(b))
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), bareEnv+"="+addr)
	cmd.Stderr = os.Stderr
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	awaitReady(b, addr)
	return addr, cmd.Process.Pid
}
