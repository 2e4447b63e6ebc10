package local

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
)

// script is the keeper: a shell that runs a server in the directory $1 until
// its own input ends, which happens when we close the pipe and also when we die
// by any signal. Then it ends the server with the signal $2 and, unless the
// input was the word keep, removes the directory. The server does not inherit our output, so that a reader of
// the output of the tests does not wait for the server.
const script = `dir=$1 sig=$2; shift 2
("$@" >log 2>&1 </dev/null & echo $! >pid; wait $!; : >ended) </dev/null >/dev/null 2>&1 &
read -r word
until [ -s pid ]; do sleep 0.1; done
[ -e ended ] || kill "-$sig" "$(cat pid)"
wait
[ "$word" = keep ] || { cd / && rm -rf "$dir"; }`

// keeper is a running script.
type keeper struct {
	dir   string
	pipe  io.WriteCloser
	ended <-chan struct{}
	once  sync.Once
}

// keep runs a command in dir as owner; signal is what ends it.
func keep(dir string, owner *syscall.Credential, signal string, command ...string) (*keeper, error) {
	cmd := exec.Command("/bin/sh", append([]string{"-c", script, "sh", dir, signal}, command...)...)
	cmd.Dir = dir
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Credential: owner} // an interrupt from the terminal is for us alone
	pipe, err := cmd.StdinPipe()
	if err != nil {
		return nil, fmt.Errorf("make a pipe: %w", err)
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start a shell: %w", err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		_ = cmd.Wait() // how the shell ends tells nothing
	}()
	return &keeper{dir: dir, pipe: pipe, ended: ended}, nil
}

// stop ends what is kept and waits for it.
func (k *keeper) stop() {
	k.once.Do(func() { _ = k.pipe.Close() })
	<-k.ended
}

// halt ends what is kept, waits for it and leaves the directory, for another
// keeper.
func (k *keeper) halt() error {
	_, err := io.WriteString(k.pipe, "keep\n")
	k.stop()
	for _, name := range []string{"pid", "ended"} {
		if e := os.Remove(filepath.Join(k.dir, name)); e != nil && !errors.Is(e, os.ErrNotExist) {
			err = errors.Join(err, e)
		}
	}
	return err
}

// serverEnded reports whether the server has ended of its own accord.
func (k *keeper) serverEnded() bool {
	_, err := os.Stat(filepath.Join(k.dir, "ended"))
	return err == nil
}

// log returns what the server has said so far.
func (k *keeper) log() string {
	text, err := os.ReadFile(filepath.Join(k.dir, "log"))
	if err != nil {
		return err.Error()
	}
	return strings.TrimSpace(string(text))
}

// TempDir makes a directory that goes when this process ends, however it ends:
// for what all tests of a process share.
func TempDir(name string) (string, error) {
	dir, err := workspace(name, nil)
	if err != nil {
		return "", err
	}
	if _, err := keep(dir, nil, "TERM", "true"); err != nil {
		return "", err
	}
	return dir, nil
}
