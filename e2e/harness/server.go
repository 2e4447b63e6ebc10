package harness

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/backplane-dev/backplane/internal/testenv"
)

// The ADMIN of every server that a test starts.
const (
	AdminName     = "root"
	AdminPassword = "correct horse battery staple"
)

// Databases are the two that every promise holds on, each as the URL of an empty
// one.
var Databases = map[string]func(testing.TB) string{
	"SQLite":     func(t testing.TB) string { return "sqlite:" + filepath.Join(t.TempDir(), "backplane.db") },
	"PostgreSQL": testenv.Postgres,
}

// OnEachDatabase runs the test on an empty database of each kind, by its URL.
func OnEachDatabase(t *testing.T, test func(t *testing.T, database string)) {
	t.Helper()
	for name, empty := range Databases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t, empty(t))
		})
	}
}

// Settings returns the environment of a server or command on the database, and more of it.
func Settings(database string, more ...string) []string {
	return append([]string{
		"BACKPLANE_DATABASE_URL=" + database, "BACKPLANE_SECRET_KEY=" + masterKey, "BACKPLANE_RATE_LIMIT=off",
		"BACKPLANE_ADMIN_USERNAME=" + AdminName, "BACKPLANE_ADMIN_PASSWORD=" + AdminPassword,
		"BACKPLANE_PAYMENT_SERVICE=off", // orders stay as the tests leave them; e2e/payments turns payments on
	}, more...)
}

// RunCommand runs a command of the binary that must succeed, while servers may run.
func RunCommand(t testing.TB, database string, args ...string) string {
	t.Helper()
	cmd := exec.Command(testenv.Binary(t), args...)
	cmd.Dir, cmd.Env = t.TempDir(), append(os.Environ(), Settings(database)...)
	out, err := testenv.OutputOf(cmd)
	if err != nil {
		t.Fatalf("backplane %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return out
}

// StartServer starts a server with an ADMIN and no rate limit on the migrated database.
func StartServer(t testing.TB, database string, more ...string) *testenv.Process {
	t.Helper()
	RunCommand(t, database, "migrate")
	return testenv.Server(t, Settings(database, more...)...)
}

// Size returns the size of a long test: small for every run, large for a soak.
func Size(small, soak int) int {
	if testenv.Soak() {
		return soak
	}
	return small
}
