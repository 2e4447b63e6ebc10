package store

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// FileLock is the right to serve an SQLite file. It ends with the process at the latest.
type FileLock struct{ f *os.File }

// FileInUseError says that another server serves an SQLite file.
type FileInUseError struct {
	Path    string
	Process string // its id as the lock file states it; empty if it does not
}

func (e *FileInUseError) Error() string {
	process := ""
	if e.Process != "" {
		process = " (process " + e.Process + ")"
	}
	return fmt.Sprintf("another server%s serves the database %s", process, e.Path)
}

// LockFile locks the SQLite file at the path for a server, in a file next to it, and makes its folder if it is missing. The error is a
// *FileInUseError while another process has the lock. Commands do not need it.
func LockFile(path string) (*FileLock, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, fmt.Errorf("make the folder of the database: %w", err)
	}
	if target, err := filepath.EvalSymlinks(path); err == nil {
		path = target // every path to a file leads to one lock
	}
	f, err := os.OpenFile(path+".lock", os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("lock the database %s: %w", path, err)
	}
	ok, err := lockExclusively(f)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("lock the database %s: %w", path, err), f.Close())
	}
	if !ok {
		process, err := io.ReadAll(io.LimitReader(f, 20))
		return nil, errors.Join(&FileInUseError{Path: path, Process: strings.TrimSpace(string(process))}, err, f.Close())
	}
	if err := writeProcess(f); err != nil {
		return nil, errors.Join(fmt.Errorf("lock the database %s: %w", path, err), f.Close())
	}
	return &FileLock{f}, nil
}

// writeProcess states the id of this process in the lock file, for the operator.
func writeProcess(f *os.File) error {
	if err := f.Truncate(0); err != nil {
		return err
	}
	_, err := f.WriteAt([]byte(strconv.Itoa(os.Getpid())+"\n"), 0)
	return err
}

// Close gives the lock back. The lock file stays: another process may be about to lock it.
func (l *FileLock) Close() error { return l.f.Close() }
