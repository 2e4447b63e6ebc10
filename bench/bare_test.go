package bench_test

import (
	"crypto/sha1"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"sync"
	"testing"

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

// bare is the least that can be done: whatever is posted is framed once and written to all sockets as
// it is, by as many goroutines as there are processors.
type bare struct {
	mu      sync.Mutex
	sockets []net.Conn
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

// join opens a WebSocket. It reads nothing of what the client sends later.
func (b *bare) join(w http.ResponseWriter, r *http.Request) {
	conn, _, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return
	}
	accept := sha1.Sum([]byte(r.Header.Get("Sec-WebSocket-Key") + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11")) // as of RFC 6455
	_, err = fmt.Fprintf(conn, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: %s\r\n"+
		"Sec-WebSocket-Protocol: graphql-transport-ws\r\n\r\n", base64.StdEncoding.EncodeToString(accept[:]))
	if err != nil {
		_ = conn.Close()
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.sockets = append(b.sockets, conn)
}

// frameText returns the frame of a short text message.
func frameText(text []byte) []byte {
	if len(text) < 126 {
		return append([]byte{0x81, byte(len(text))}, text...)
	}
	return append(binary.BigEndian.AppendUint16([]byte{0x81, 126}, uint16(len(text))), text...)
}

func (b *bare) broadcast(_ http.ResponseWriter, r *http.Request) {
	text, err := io.ReadAll(r.Body)
	if err != nil {
		return
	}
	frame := frameText(text)
	b.mu.Lock() // one after the other, so that each client gets all in one order
	defer b.mu.Unlock()
	var all sync.WaitGroup
	each := max(1, (len(b.sockets)+runtime.GOMAXPROCS(0)-1)/runtime.GOMAXPROCS(0))
	for part := range slices.Chunk(b.sockets, each) {
		all.Go(func() {
			for _, conn := range part {
				_, _ = conn.Write(frame) // a client that is lost shows in the count
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
