package targets

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/backplane-dev/backplane/e2e/harness"
)

// TestServer_is_alone_on_a_SQLite_file starts a second server on the file of a first, also through a symbolic link.
func TestServer_is_alone_on_a_SQLite_file(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "backplane.db")
	link := filepath.Join(t.TempDir(), "link.db")
	p := harness.StartServer(t, "sqlite:"+path)
	if err := os.Symlink(path, link); err != nil {
		t.Fatal(err)
	}
	for _, file := range []string{path, link} {
		out, err := p.Run("serve", "--listen=127.0.0.1:0", "--database-url=sqlite:"+file)
		if err == nil || !strings.Contains(out, "serves the database "+path+": stop it") || !strings.Contains(out, "(process ") {
			t.Errorf("a second server on %s said %s, %v", file, out, err)
		}
	}
	if out, err := p.Run("migrate", "--after-restore"); err == nil || !strings.Contains(out, "another server") {
		t.Errorf("migrate --after-restore beside a server said %s, %v", out, err)
	}
	p.Kill()
	if out, err := p.Run("migrate", "--after-restore"); err != nil {
		t.Errorf("migrate --after-restore after kill -9 said %s, %v", out, err)
	}
	p.Start() // the lock has ended with the process
	harness.SignInAdmin(t, p)
}

// TestMigrate_after_restore_is_refused_while_nodes_serve asks for another timeline of a PostgreSQL database that a node serves.
func TestMigrate_after_restore_is_refused_while_nodes_serve(t *testing.T) {
	t.Parallel()
	p := harness.StartServer(t, harness.Databases["PostgreSQL"](t))
	before := harness.SignInAdmin(t, p).EventCursor(t)
	if out, err := p.Run("migrate", "--after-restore"); err == nil || !strings.Contains(out, "servers serve this database") {
		t.Errorf("migrate --after-restore beside a node said %s, %v", out, err)
	}
	root := harness.SignInAdmin(t, p)
	if got := root.RefusalCode(t, harness.ReadEvents, map[string]any{"after": before}); got != "" {
		t.Errorf("after the refusal a cursor is %s", got)
	}
	p.Kill()
	if out, err := p.Run("migrate", "--after-restore"); err != nil {
		t.Errorf("migrate --after-restore after kill -9 said %s, %v", out, err)
	}
}
