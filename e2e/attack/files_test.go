package attack

import (
	"crypto/sha256"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/backplane-dev/backplane/e2e/harness"
	"github.com/backplane-dev/backplane/internal/testenv"
)

// runIn runs a command of the binary in a folder and returns what it printed.
func runIn(t *testing.T, folder string, env []string, args ...string) (string, error) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), testenv.Binary(t), args...)
	cmd.Dir, cmd.Env = folder, append(os.Environ(), env...)
	return testenv.OutputOf(cmd)
}

// digests returns a digest of every file in the folder.
func digests(t *testing.T, folder string) map[string][32]byte {
	t.Helper()
	all := map[string][32]byte{}
	err := filepath.WalkDir(folder, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || strings.HasSuffix(path, "-shm") || strings.HasSuffix(path, "-wal") { // SQLite's own
			return err
		}
		content, err := os.ReadFile(path)
		all[filepath.Base(path)] = sha256.Sum256(content)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func TestDatabase_file_is_for_its_owner_alone(t *testing.T) {
	t.Parallel()
	folder := t.TempDir() // 0755: it existed before the server
	env := harness.Settings("sqlite:" + filepath.Join(folder, "backplane.db"))
	if out, err := runIn(t, folder, env, "migrate"); err != nil {
		t.Fatalf("migrate: %v\n%s", err, out)
	}
	p := testenv.Server(t, env...)
	harness.SignUp(t, p, "ada")
	for _, name := range []string{"backplane.db", "backplane.db-wal", "backplane.db-shm"} {
		info, err := os.Stat(filepath.Join(folder, name))
		if err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v, want mode 0600", name, info, err)
		}
	}
	p.Stop()
	if err := os.Chmod(filepath.Join(folder, "backplane.db"), 0o644); err != nil {
		t.Fatal(err)
	}
	if out, err := runIn(t, folder, env, "serve", "--listen", "127.0.0.1:0"); err == nil || !strings.Contains(out, "others may read the database") {
		t.Errorf("serve with a database that others may read: %v\n%s", err, out)
	}
}

// readingCommands are commands that show something.
var readingCommands = [][]string{{"doctor"}, {"services"}, {"legacy"}, {"keys"}, {"keys", "list"}, {"consumers"}, {"deadletters"}, {"sinks"}}

// runUnderAnotherKey runs the reading commands under a master key that is not that of the database.
func runUnderAnotherKey(t *testing.T, folder, database string) {
	t.Helper()
	otherKey := append(harness.Settings(database), "BACKPLANE_SECRET_KEY="+strings.Repeat("o", 43))
	for _, args := range readingCommands {
		out, err := runIn(t, folder, otherKey, args...)
		if (err == nil) == (args[0] == "doctor") || args[0] == "doctor" && !strings.Contains(out, "is not the key") {
			t.Errorf("%v with another key: %v\n%s", args, err, out)
		}
	}
}

func TestReading_commands_leave_the_master_key_of_each_database(t *testing.T) {
	t.Parallel()
	harness.OnEachDatabase(t, func(t *testing.T, database string) {
		p := harness.StartServer(t, database)
		ada := harness.SignUp(t, p, "ada")
		p.Stop()
		runUnderAnotherKey(t, t.TempDir(), database)
		p.Start()
		ada.Do(t, "{ viewer { user { name } } }", nil) // its token was signed before
	})
}

func TestReading_commands_change_nothing(t *testing.T) {
	t.Parallel()
	folder := t.TempDir()
	database := "sqlite:" + filepath.Join(folder, "backplane.db")
	for _, args := range readingCommands {
		if out, err := runIn(t, folder, harness.Settings(database), args...); err == nil || !strings.Contains(out, "there is no database yet") {
			t.Errorf("%v without a database: %v\n%s", args, err, out)
		}
	}
	if found := digests(t, folder); len(found) > 0 {
		t.Errorf("commands made files: %v", found)
	}
	testenv.Server(t, harness.Settings(database)...).Stop()
	before := digests(t, folder)
	runUnderAnotherKey(t, folder, database)
	if diff := cmp.Diff(before, digests(t, folder)); diff != "" {
		t.Errorf("commands changed files (-before +after): %s", diff)
	}
	testenv.Server(t, harness.Settings(database)...).Stop() // the key is what it was
}

func TestMaster_key_is_rotated_on_each_database(t *testing.T) {
	t.Parallel()
	harness.OnEachDatabase(t, func(t *testing.T, database string) {
		p := harness.StartServer(t, database)
		ada := harness.SignUp(t, p, "ada")
		file := filepath.Join(t.TempDir(), "old")
		if err := os.WriteFile(file, []byte(strings.Repeat("k", 43)+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		next := append(harness.Settings(database), "BACKPLANE_SECRET_KEY="+strings.Repeat("n", 43))
		if out, err := runIn(t, t.TempDir(), next, "keys", "rotate-master", "--old", file); err != nil {
			t.Fatalf("keys rotate-master: %v\n%s", err, out)
		}
		ada.Do(t, "{ viewer { user { name } } }", nil) // the running server goes on
		p.Stop()
		renewed := testenv.Server(t, next...)
		ada.BaseURL = renewed.BaseURL
		ada.Do(t, "{ viewer { user { name } } }", nil) // its token was signed before
		renewed.Stop()                                 // one server at a time serves an SQLite file
		if out, err := runIn(t, t.TempDir(), harness.Settings(database), "serve", "--listen", "127.0.0.1:0"); err == nil || !strings.Contains(out, "sealed with another secret key") {
			t.Errorf("serve with the old key: %v\n%s", err, out)
		}
	})
}
