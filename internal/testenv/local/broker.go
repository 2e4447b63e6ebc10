package local

import (
	"bufio"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Broker is a server that keeps its data on disk and can be stopped and started
// again. Its methods are for one goroutine.
type Broker struct {
	Server

	command []string
	signal  string
	ready   func() error
	control func(args ...string) ([]byte, error) // nil if there is no such command
}

// ErrNoControl says that a broker has no command that changes it while it runs.
var ErrNoControl = errors.New("this broker has no control command")

// Control runs the broker's control command and returns what that wrote.
func (b *Broker) Control(args ...string) ([]byte, error) {
	if b.control == nil {
		return nil, ErrNoControl
	}
	return b.control(args...)
}

// Halt ends the broker as a crash would, and keeps its data.
func (b *Broker) Halt() error {
	holder := []string{"true"} // the data go with us, also while nothing runs
	return b.replace("TERM", holder)
}

// Start starts the broker again after a Halt, on the same address.
func (b *Broker) Start() error {
	if err := b.replace(b.signal, b.command); err != nil {
		return err
	}
	return b.await(b.ready)
}

func (b *Broker) replace(signal string, command []string) error {
	dir := b.kept.dir
	if err := b.kept.halt(); err != nil {
		return err
	}
	kept, err := keep(dir, nil, signal, command...)
	if err != nil {
		return errors.Join(err, os.RemoveAll(dir))
	}
	b.kept = kept
	return nil
}

// launch starts a broker in dir, which clients reach at url and which signal ends.
func launch(dir, url, signal string, command []string, ready func() error) (*Broker, error) {
	kept, err := keep(dir, nil, signal, command...)
	if err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	b := &Broker{Server: Server{URL: url, kept: kept}, command: command, signal: signal, ready: ready}
	if err := b.await(ready); err != nil {
		b.Stop()
		return nil, fmt.Errorf("start %s: %w", command[0], err)
	}
	return b, nil
}

// RedisBroker starts a Redis that has stored what it has confirmed.
func RedisBroker() (*Broker, error) {
	bin, err := redisBin()
	if err != nil {
		return nil, err
	}
	dir, port, err := place("redis-broker")
	if err != nil {
		return nil, err
	}
	return launch(dir, "redis://"+Address(port)+"/0", "KILL", []string{
		bin, "--bind", "127.0.0.1", "--port", strconv.Itoa(port), "--dir", dir, "--save", "",
		"--appendonly", "yes", "--appendfsync", "always",
	}, func() error { return pingRedis(Address(port)) })
}

// NATS starts a nats-server with JetStream. It returns ErrMissing if there is
// none to start.
func NATS() (*Broker, error) {
	bin, err := lookPath("nats-server", "/usr/sbin/nats-server", "/opt/homebrew/bin/nats-server", "/usr/local/bin/nats-server")
	if err != nil {
		return nil, err
	}
	dir, port, err := place("nats")
	if err != nil {
		return nil, err
	}
	return launch(dir, "nats://"+Address(port), "KILL",
		[]string{bin, "-a", "127.0.0.1", "-p", strconv.Itoa(port), "-js", "-sd", filepath.Join(dir, "js")},
		func() error { return greets(Address(port), "", "INFO ") })
}

// pair runs RabbitMQ with an epmd, Erlang's port mapper, of its own, and ends
// both when it is told to end: else the mapper stays for ever.
const pair = `epmd -port "$ERL_EPMD_PORT" -address 127.0.0.1 & e=$!
"$@" & r=$!
trap 'kill -9 $r $e' TERM
wait $r
kill -9 $r $e 2>/dev/null
wait`

// RabbitMQ starts a RabbitMQ without plugins. It returns ErrMissing if there is
// none to start.
func RabbitMQ() (*Broker, error) {
	// The one in PATH may be a wrapper that insists on the system's directories.
	bin, err := lookPath("/usr/lib/rabbitmq/bin/rabbitmq-server", "/opt/homebrew/sbin/rabbitmq-server", "/usr/local/sbin/rabbitmq-server", "rabbitmq-server")
	if err != nil {
		return nil, err
	}
	if _, err := lookPath("epmd"); err != nil {
		return nil, err
	}
	dir, port, err := place("rabbitmq")
	if err != nil {
		return nil, err
	}
	var ports [2]string
	for i := range ports {
		p, err := FreePort()
		if err != nil {
			return nil, errors.Join(err, os.RemoveAll(dir))
		}
		ports[i] = strconv.Itoa(p)
	}
	settings := "listeners.tcp.1 = " + Address(port) + "\nlog.console = true\nlog.file = false\ndisk_free_limit.absolute = 1MB\nvm_memory_high_watermark.absolute = 512MB\n"
	if err := errors.Join(os.WriteFile(filepath.Join(dir, "rabbitmq.conf"), []byte(settings), 0o600),
		os.WriteFile(filepath.Join(dir, "enabled_plugins"), []byte("[].\n"), 0o600)); err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	node := []string{"HOME=" + dir, "ERL_EPMD_PORT=" + ports[0], "RABBITMQ_NODENAME=backplane" + strconv.Itoa(port) + "@localhost"}
	b, err := launch(dir, "amqp://guest:guest@"+Address(port)+"/", "TERM", slices.Concat([]string{"env"}, node, []string{
		"ERL_EPMD_ADDRESS=127.0.0.1", "RABBITMQ_DIST_PORT=" + ports[1], "RABBITMQ_MNESIA_BASE=" + filepath.Join(dir, "data"),
		"RABBITMQ_LOG_BASE=" + dir, "RABBITMQ_CONFIG_FILE=" + filepath.Join(dir, "rabbitmq.conf"),
		"RABBITMQ_ENABLED_PLUGINS_FILE=" + filepath.Join(dir, "enabled_plugins"), "RABBITMQ_CONF_ENV_FILE=/dev/null",
		"RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS=-kernel inet_dist_use_interface {127,0,0,1} +S 2:2 +sbwt none",
		"RUNNING_UNDER_SYSTEMD=true", // so that its script becomes the server rather than its parent
		"sh", "-c", pair, "sh", bin,
	}), func() error { return greets(Address(port), "AMQP\x00\x00\x09\x01", "\x01") })
	if err != nil {
		return nil, err
	}
	b.control = func(args ...string) ([]byte, error) {
		cmd := exec.Command(filepath.Join(filepath.Dir(bin), "rabbitmqctl"), args...)
		cmd.Env = append(os.Environ(), node...)
		return cmd.CombinedOutput()
	}
	return b, nil
}

// greets reports whether the listening server answers a greeting as expected.
func greets(addr, say, want string) error {
	conn, err := net.DialTimeout("tcp", addr, time.Second)
	if err != nil {
		return err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(time.Second)); err != nil {
		return err
	}
	if _, err := conn.Write([]byte(say)); err != nil {
		return err
	}
	got := make([]byte, len(want))
	if _, err := bufio.NewReader(conn).Read(got); err != nil {
		return err
	}
	if string(got) != want {
		return fmt.Errorf("answered %q", got)
	}
	return nil
}

// place makes a directory and finds a port.
func place(name string) (dir string, port int, err error) {
	if port, err = FreePort(); err != nil {
		return "", 0, err
	}
	dir, err = workspace(name, nil)
	return dir, port, err
}

// lookPath returns the first of the programs that is installed.
func lookPath(names ...string) (string, error) {
	for _, name := range names {
		if bin, err := exec.LookPath(name); err == nil {
			return bin, nil
		}
	}
	return "", fmt.Errorf("%w: there is none of %s", ErrMissing, strings.Join(names, ", "))
}
