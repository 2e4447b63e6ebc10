package main

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"time"
)

// stage is the processes of the demo, and their files.
type stage struct {
	shop

	dir      string
	server   *process
	services []*process
}

// build builds both programs from the sources of this repository.
func (s *stage) build(ctx context.Context) error {
	for name, pkg := range map[string]string{"backplane": ".", "payment-service": "./examples/payment-service"} {
		cmd := exec.CommandContext(ctx, "go", "build", "-trimpath", "-o", filepath.Join(s.dir, name), pkg)
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("go build %s: %w\n%s", pkg, err, out)
		}
	}
	return nil
}

// open starts the server, prepares the shop, and starts the payment services.
func (s *stage) open(ctx context.Context) error {
	address, err := freeAddress(ctx)
	if err != nil {
		return err
	}
	password, secret := rand.Text(), "whsec_"+base64.StdEncoding.EncodeToString([]byte(rand.Text()))
	s.url = "http://" + address
	s.server, err = s.start("backplane", []string{"serve"},
		"BACKPLANE_LISTEN="+address, "BACKPLANE_ADMIN_LISTEN=off", "BACKPLANE_DATABASE_URL=sqlite:"+filepath.Join(s.dir, "shop.db"),
		"BACKPLANE_ADMIN_USERNAME=admin", "BACKPLANE_ADMIN_PASSWORD="+password, "BACKPLANE_STOP_DELAY=0s",
		"BACKPLANE_RATE_LIMIT=off", // one customer places all orders
		"BACKPLANE_PUBLIC_URL="+s.url, "BACKPLANE_PAYMENT_CALLBACK_SECRETS="+secret)
	if err != nil {
		return err
	}
	if err := awaitStatus(ctx, s.url+"/readyz"); err != nil {
		return err
	}
	key, err := s.prepare(ctx, password)
	if err != nil {
		return err
	}
	for n := range 2 {
		if address, err = freeAddress(ctx); err != nil {
			return err
		}
		late := []string{"0s", "1s"}[n]
		p, err := s.start("payment-service",
			[]string{"-registry", s.url, "-instance", fmt.Sprint("till-", n+1), "-listen", address, "-database", filepath.Join(s.dir, "payments.db"), "-slow", "50ms", "-late", late},
			"BACKPLANE_API_KEY="+key, "PAYMENT_CALLBACK_SECRET="+secret)
		if err != nil {
			return err
		}
		s.services = append(s.services, p)
		if err := awaitStatus(ctx, "http://"+address+"/healthz"); err != nil {
			return err
		}
	}
	return s.awaitInstances(ctx, 2)
}

// awaitInstances waits until so many instances of the payment service are registered and pass their checks.
func (s *stage) awaitInstances(ctx context.Context, want int) error {
	for {
		var out struct {
			Service struct {
				Instances struct{ Nodes []struct{ Status string } }
			}
		}
		if err := s.call(ctx, s.admin, `{ service(name: "payment-service") { instances { nodes { status } } } }`, nil, &out); err != nil {
			return err
		}
		passing := 0
		for _, i := range out.Service.Instances.Nodes {
			if i.Status == "PASSING" {
				passing++
			}
		}
		if passing == want {
			return nil
		}
		if err := pause(ctx); err != nil {
			return fmt.Errorf("%d of %d payment services are registered: %w", passing, want, err)
		}
	}
}

func (s *stage) charged(ctx context.Context) (cents int64, payments int, err error) {
	return chargedIn(ctx, filepath.Join(s.dir, "payments.db"))
}

// close ends what still runs by SIGTERM: the payment services drain before they stop.
func (s *stage) close() error {
	return errors.Join(s.services[1].terminate(), s.server.terminate())
}

func (s *stage) killAll() {
	for _, p := range append(s.services, s.server) {
		if p != nil {
			p.kill()
		}
	}
}

func (s *stage) printLogs() {
	for _, p := range append(s.services, s.server) {
		if p != nil {
			sayf("\nThe last lines of %s:\n%s", p.name, p.out.last())
		}
	}
}

// process is a program that runs.
type process struct {
	name string
	cmd  *exec.Cmd
	out  *output
	end  sync.Once
	err  error // of its end
}

// start starts a program of the stage, with the settings of the demo alone.
func (s *stage) start(name string, args []string, env ...string) (*process, error) {
	p := &process{name: name, cmd: exec.Command(filepath.Join(s.dir, name), args...), out: &output{}} //nolint:noctx // it is ended by signals
	p.cmd.Dir, p.cmd.Stdout, p.cmd.Stderr = s.dir, p.out, p.out
	p.cmd.Env = append([]string{"PATH=" + os.Getenv("PATH"), "HOME=" + s.dir, "TMPDIR=" + s.dir}, env...)
	return p, p.cmd.Start()
}

// kill ends the process at once, as kill -9 does.
func (p *process) kill() {
	_ = p.cmd.Process.Kill() // it may have ended
	p.end.Do(func() { p.err = p.cmd.Wait() })
}

// terminate ends the process by SIGTERM, and returns an error unless it exits with 0 in time.
func (p *process) terminate() error {
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		return fmt.Errorf("stop %s: %w", p.name, err)
	}
	late := time.AfterFunc(20*time.Second, func() { _ = p.cmd.Process.Kill() })
	defer late.Stop()
	p.end.Do(func() { p.err = p.cmd.Wait() })
	if p.err != nil {
		return fmt.Errorf("stop %s: %w", p.name, p.err)
	}
	return nil
}

// output keeps the end of what a process writes.
type output struct {
	mu   sync.Mutex
	text []byte
}

// outputSize bounds an output, in bytes.
const outputSize = 64 << 10

func (o *output) Write(b []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.text = append(o.text, b...)
	o.text = o.text[max(0, len(o.text)-outputSize):]
	return len(b), nil
}

// last returns the last lines.
func (o *output) last() []byte {
	o.mu.Lock()
	defer o.mu.Unlock()
	lines := bytes.Split(o.text, []byte("\n"))
	return bytes.Join(lines[max(0, len(lines)-20):], []byte("\n"))
}

// freeAddress returns an address of this machine with a free port.
func freeAddress(ctx context.Context) (string, error) {
	ln, err := (&net.ListenConfig{}).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return "", err
	}
	return ln.Addr().String(), ln.Close()
}

// awaitStatus waits until the page answers with 200.
func awaitStatus(ctx context.Context, url string) error {
	for {
		r, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
		if err != nil {
			return err
		}
		resp, err := http.DefaultClient.Do(r)
		if err == nil {
			_ = resp.Body.Close()
			if resp.StatusCode == http.StatusOK {
				return nil
			}
		}
		if err := pause(ctx); err != nil {
			return fmt.Errorf("wait for %s: %w", url, err)
		}
	}
}

// pause waits a moment, or returns the error of ctx.
func pause(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(50 * time.Millisecond):
		return nil
	}
}
