package targets

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/backplane-dev/backplane/e2e/harness"
	"github.com/backplane-dev/backplane/internal/testenv"
)

// TestServer_notices_an_older_copy_of_its_SQLite_file puts an older copy in the place of the file, in the same inode, and starts the server without
// migrate --after-restore. A cursor of what is lost stays refused, however many events come after.
func TestServer_notices_an_older_copy_of_its_SQLite_file(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "backplane.db")
	p := harness.StartServer(t, "sqlite:"+path)
	root := harness.SignInAdmin(t, p)
	harness.CreateProduct(t, root, "OLD", 1)
	p.Stop()
	backup, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for name, end := range map[string]func(){"stopped": p.Stop, "killed": func() { killRecorded(t, p, path) }} {
		p.Start()
		root = harness.SignInAdmin(t, p)
		for n := range 3 {
			harness.CreateProduct(t, root, fmt.Sprint("LOST", n), 1)
		}
		lost := root.EventCursor(t)
		end()
		restore(t, path, backup)
		p.Start()
		root = harness.SignInAdmin(t, p)
		for n := range 5 {
			harness.CreateProduct(t, root, fmt.Sprint("NEW", n), 1)
		}
		if got := root.RefusalCode(t, harness.ReadEvents, map[string]any{"after": lost}); got != "CURSOR_UNKNOWN" {
			t.Errorf("%s: a cursor of what was lost is %q, want CURSOR_UNKNOWN", name, got)
		}
		now := root.EventCursor(t)
		p.Stop()
		p.Start() // nothing was restored this time
		root = harness.SignInAdmin(t, p)
		if got := root.RefusalCode(t, harness.ReadEvents, map[string]any{"after": now}); got != "" {
			t.Errorf("%s: after another start a cursor is %q", name, got)
		}
		p.Stop()
		restore(t, path, backup)
	}
}

// killRecorded kills the server once it has recorded the head of its log.
func killRecorded(t *testing.T, p *testenv.Process, path string) {
	t.Helper()
	before, _ := os.ReadFile(path + ".head") // there may be none yet
	testenv.Eventually(t, "the head is recorded", func() bool {
		now, err := os.ReadFile(path + ".head")
		return err == nil && string(now) != string(before)
	})
	p.Kill()
}

// restore writes the backup into the file, as cp does.
func restore(t *testing.T, path string, backup []byte) {
	t.Helper()
	for _, side := range []string{"-wal", "-shm"} {
		_ = os.Remove(path + side) // there may be none
	}
	if err := os.WriteFile(path, backup, 0o600); err != nil {
		t.Fatal(err)
	}
}
