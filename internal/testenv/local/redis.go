package local

import (
	"bufio"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strconv"
	"time"
)

// Databases is how many databases a private Redis has, numbered from 0.
const Databases = 4096

// Redis starts an empty Redis server that stores nothing on disk. It returns
// ErrMissing if there is no binary to start.
func Redis() (*Server, error) {
	bin, err := redisBin()
	if err != nil {
		return nil, err
	}
	dir, err := workspace("redis", nil)
	if err != nil {
		return nil, fmt.Errorf("start Redis: %w", err)
	}
	s, err := startRedis(bin, dir)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("start %s: %w", bin, err), os.RemoveAll(dir))
	}
	return s, nil
}

func startRedis(bin, dir string) (*Server, error) {
	port, err := FreePort()
	if err != nil {
		return nil, err
	}
	kept, err := keep(dir, nil, "KILL", // it has nothing to save
		bin, "--bind", "127.0.0.1", "--port", strconv.Itoa(port), "--dir", dir,
		"--save", "", "--appendonly", "no", "--databases", strconv.Itoa(Databases))
	if err != nil {
		return nil, err
	}
	s := &Server{URL: "redis://" + Address(port) + "/0", kept: kept}
	if err := s.await(func() error { return pingRedis(Address(port)) }); err != nil {
		s.Stop()
		return nil, err
	}
	return s, nil
}

func redisBin() (string, error) {
	for _, name := range []string{"redis-server", "valkey-server", "/opt/homebrew/bin/redis-server", "/usr/local/bin/redis-server"} {
		if bin, err := exec.LookPath(name); err == nil {
			return bin, nil
		}
	}
	return "", fmt.Errorf("%w: no redis-server in PATH", ErrMissing)
}

func pingRedis(addr string) error {
	conn, err := net.DialTimeout("tcp", addr, time.Second)
	if err != nil {
		return err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(time.Second)); err != nil {
		return err
	}
	if _, err := conn.Write([]byte("PING\r\n")); err != nil {
		return err
	}
	answer, err := bufio.NewReader(conn).ReadString('\n')
	if err == nil && answer != "+PONG\r\n" {
		return fmt.Errorf("answered %q to PING", answer)
	}
	return err
}
