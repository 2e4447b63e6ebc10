package secrets

import (
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
)

// Lengths of a master key as text, in bytes. 32 characters of base64 or hex are
// at least 128 random bits.
const (
	minText = 32
	maxText = 1024
)

// MasterKey is a master key. The zero Key protects nothing.
type MasterKey struct {
	secret [Size]byte
	set    bool
}

// ParseMasterKey makes a master key of text from the operator: 32 to 1024 bytes.
func ParseMasterKey(text string) (MasterKey, error) {
	if len(text) < minText || len(text) > maxText {
		return MasterKey{}, fmt.Errorf("a secret key must be %d to %d characters long, and random: make one with `openssl rand -base64 32`", minText, maxText)
	}
	return MasterKey{deriveKey([]byte(text), "master"), true}, nil
}

// MasterKeyFromFile returns the master key in a file. If there is no file it makes
// one with a random key that only the owner may read, and its directory; of several
// processes that do so at once all get the same key. A file that others may read is
// refused.
func MasterKeyFromFile(path string) (MasterKey, error) {
	key, err := ReadMasterKey(path)
	if errors.Is(err, fs.ErrNotExist) {
		if err := createPrivate(path); err != nil {
			return MasterKey{}, fmt.Errorf("secret key: %w", err)
		}
		return ReadMasterKey(path)
	}
	return key, err
}

// ReadMasterKey returns the master key in a file that only its owner may read.
func ReadMasterKey(path string) (MasterKey, error) {
	text, err := readPrivate(path)
	if err != nil {
		return MasterKey{}, fmt.Errorf("secret key: %w", err)
	}
	key, err := ParseMasterKey(text)
	if err != nil {
		return MasterKey{}, fmt.Errorf("secret key in %s: %w", path, err)
	}
	return key, nil
}

// IsSet reports whether there is a key.
func (k MasterKey) IsSet() bool { return k.set }

// String keeps a key out of logs.
func (k MasterKey) String() string { return "secrets.MasterKey(…)" }

// GoString keeps a key out of logs.
func (k MasterKey) GoString() string { return k.String() }

// readPrivate reads a short file that only its owner may read, without the line
// end. Windows has no such mode bits: there they are not checked.
func readPrivate(path string) (string, error) {
	info, err := os.Stat(path)
	if err != nil {
		return "", err
	}
	if runtime.GOOS != "windows" && info.Mode().Perm()&0o077 != 0 {
		return "", fmt.Errorf("others may read %s (mode %04o): run `chmod 600 %s`, and change the key if it may have been read", path, info.Mode().Perm(), path)
	}
	if !info.Mode().IsRegular() || info.Size() > maxText+2 {
		return "", fmt.Errorf("%s is not a key file", path)
	}
	b, err := os.ReadFile(path)
	return trimLineEnd(string(b)), err
}

func trimLineEnd(s string) string {
	for len(s) > 0 && (s[len(s)-1] == '\n' || s[len(s)-1] == '\r') {
		s = s[:len(s)-1]
	}
	return s
}

// createPrivate puts a whole key file in place, or leaves alone what another
// process has put there: a reader never sees half a key.
func createPrivate(path string) error {
	dir := filepath.Dir(path)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	tmp, err := os.CreateTemp(dir, ".secret-*") // mode 0600
	if err != nil {
		return err
	}
	defer func() { _ = os.Remove(tmp.Name()) }()
	secret := randomKey()
	_, err = tmp.WriteString(base64.StdEncoding.EncodeToString(secret[:]) + "\n")
	if err := errors.Join(err, tmp.Sync(), tmp.Close()); err != nil {
		return err
	}
	if err := os.Link(tmp.Name(), path); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return syncDir(dir)
}

// syncDir makes a new file name survive a crash: without the master key, all that
// is sealed is lost.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	err = d.Sync()
	if runtime.GOOS == "windows" {
		err = nil // directories cannot be synced there
	}
	return errors.Join(err, d.Close())
}
