package local

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// PgBouncer starts a connection pooler before the PostgreSQL server at the address, with further lines of
// its configuration. It returns ErrMissing if there is none to start.
func PgBouncer(address string, config ...string) (*Server, error) {
	bin, err := lookPath("pgbouncer", "/usr/sbin/pgbouncer", "/usr/local/bin/pgbouncer", "/opt/homebrew/bin/pgbouncer")
	if err != nil {
		return nil, err
	}
	owner, err := postgresOwner()
	if err != nil {
		return nil, err
	}
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return nil, err
	}
	return startIntermediary("pgbouncer", owner, func(listen string) string {
		_, own, _ := net.SplitHostPort(listen) // it is one of ours
		return fmt.Sprintf("[databases]\n* = host=%s port=%s user=backplane\n[pgbouncer]\nlisten_addr = 127.0.0.1\nlisten_port = %s\nunix_socket_dir =\nauth_type = any\n%s\n",
			host, port, own, strings.Join(config, "\n"))
	}, "INT", func(file string) []string { return []string{bin, file} })
}

// HAProxy starts a TCP proxy before the servers at the addresses. It returns ErrMissing if there is none to
// start.
func HAProxy(addresses ...string) (*Balancer, error) {
	bin, err := lookPath("haproxy", "/usr/sbin/haproxy", "/usr/local/bin/haproxy", "/opt/homebrew/bin/haproxy")
	if err != nil {
		return nil, err
	}
	b := &Balancer{}
	s, err := startIntermediary("haproxy", nil, func(listen string) string {
		var lines strings.Builder
		for i, address := range addresses {
			fmt.Fprintf(&lines, "  server s%d %s\n", i, address)
		}
		return fmt.Sprintf("global\n  stats socket unix@admin.sock mode 600 level admin\ndefaults\n  mode tcp\n  timeout connect 2s\n  timeout client 1h\n  timeout server 1h\n"+
			"listen pg\n  bind %s\n%s", listen, lines.String())
	}, "TERM", func(file string) []string { return []string{bin, "-db", "-f", file} })
	if err != nil {
		return nil, err
	}
	b.Server = s
	return b, nil
}

// Balancer is a running HAProxy.
type Balancer struct{ *Server }

// Replace sends new connections to the server at the address, in place of the one of that number. Connections
// that are open stay.
func (b *Balancer) Replace(n int, address string) error {
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		return err
	}
	for _, command := range []string{
		fmt.Sprintf("set server pg/s%d state maint", n),
		fmt.Sprintf("set server pg/s%d addr %s port %s", n, host, port),
		fmt.Sprintf("set server pg/s%d state ready", n),
	} {
		conn, err := net.Dial("unix", filepath.Join(b.kept.dir, "admin.sock"))
		if err != nil {
			return err
		}
		_, err = fmt.Fprintln(conn, command)
		answer := make([]byte, 200)
		read, _ := conn.Read(answer) // it closes the connection after the answer
		if err := errors.Join(err, conn.Close()); err != nil {
			return err
		}
		if text := strings.TrimSpace(string(answer[:read])); text != "" && !strings.Contains(text, "changed") && !strings.Contains(text, "no need") {
			return fmt.Errorf("HAProxy answered %q to %q", text, command)
		}
	}
	return nil
}

// startIntermediary starts a program that listens on a port of its own, with the configuration for that
// address in a file. Its URL is the address.
func startIntermediary(name string, owner *syscall.Credential, config func(listen string) string, signal string, command func(file string) []string) (*Server, error) {
	dir, err := workspace(name, owner)
	if err != nil {
		return nil, err
	}
	port, err := FreePort()
	if err != nil {
		return nil, err
	}
	file := filepath.Join(dir, name+".conf")
	if err := os.WriteFile(file, []byte(config(Address(port))), 0o644); err != nil { // it is read as another user, and holds no secret
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	kept, err := keep(dir, owner, signal, command(file)...)
	if err != nil {
		return nil, errors.Join(err, os.RemoveAll(dir))
	}
	s := &Server{URL: Address(port), kept: kept}
	err = s.await(func() error {
		conn, err := net.Dial("tcp", s.URL)
		if err != nil {
			return err
		}
		return conn.Close()
	})
	if err != nil {
		s.Stop()
		return nil, err
	}
	return s, nil
}
