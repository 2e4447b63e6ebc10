package testenv_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/redis/go-redis/v9"

	"github.com/backplane-dev/backplane/internal/testenv"
	"github.com/backplane-dev/backplane/internal/testenv/local"
)

func TestPostgres(t *testing.T) {
	t.Parallel()
	t.Run("gives each call an empty database", func(t *testing.T) {
		t.Parallel()
		for range 2 {
			conn, err := pgx.Connect(t.Context(), testenv.Postgres(t))
			if err != nil {
				t.Fatal(err)
			}
			if _, err := conn.Exec(t.Context(), "CREATE TABLE things (id int)"); err != nil {
				t.Errorf("create a table in a new database: %v", err)
			}
		}
	})
	t.Run("drops the database even if a connection is left open", func(t *testing.T) {
		t.Parallel()
		var url string
		t.Run("user", func(t *testing.T) { //nolint:paralleltest // the next line needs it to have ended
			url = testenv.Postgres(t)
			if _, err := pgx.Connect(t.Context(), url); err != nil {
				t.Fatal(err)
			}
		})
		if _, err := pgx.Connect(t.Context(), url); err == nil {
			t.Error("the database is still there after its test")
		}
	})
}

func TestRedis(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"gives one test a database", "gives another test another database"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			opts, err := redis.ParseURL(testenv.Redis(t))
			if err != nil {
				t.Fatal(err)
			}
			client := redis.NewClient(opts)
			defer client.Close()
			set, err := client.SetNX(t.Context(), "mine", 1, 0).Result()
			if err != nil || !set {
				t.Errorf("SETNX in an own database = %v, %v, want true", set, err)
			}
		})
	}
}

// fakeT records what LeaveOut does with a test.
type fakeT struct {
	testing.TB
	skipped, failed bool
}

func (*fakeT) Helper()                {}
func (*fakeT) Name() string           { return "TestFake/case" }
func (f *fakeT) Skipf(string, ...any) { f.skipped = true }
func (f *fakeT) Fatalf(string, ...any) {
	f.failed = true
	panic(f)
}

// leaveOut returns what LeaveOut did. A failure ends a test at once; here it
// panics, which ends the call.
func leaveOut() (f *fakeT) {
	f = &fakeT{}
	defer func() { _ = recover() }()
	testenv.LeaveOut(f, "A server", errors.New("gone\nfor good"))
	return f
}

func TestLeaveOut(t *testing.T) { // it sets the environment, so it runs alone
	file := filepath.Join(t.TempDir(), "left-out")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv(local.LeftOut, file)

	t.Setenv("CI", "")
	if f := leaveOut(); !f.skipped {
		t.Error("on a developer's machine the test was not skipped")
	}
	notes, err := os.ReadFile(file)
	if want := "testenv\tTestFake/case\tA server is missing: gone for good\n"; err != nil || string(notes) != want {
		t.Errorf("noted %q, %v, want %q", notes, err, want)
	}

	t.Setenv("CI", "true")
	if f := leaveOut(); f.skipped || !f.failed {
		t.Error("in CI the test did not fail")
	}
}

func TestFreePort(t *testing.T) {
	t.Parallel()
	port := testenv.FreePort(t)
	if addr := local.Address(port); !strings.HasPrefix(addr, "127.0.0.1:") || port < 1024 {
		t.Errorf("FreePort = %d (%s), want an unprivileged loopback port", port, addr)
	}
}
