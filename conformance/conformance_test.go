// Package conformance holds the schema and the running server against the tools
// of others: a public schema linter, Relay's compiler, GraphQL Code Generator,
// the audit suite of GraphQL over HTTP and the clients of its streams. They are
// npm packages, pinned by package-lock.json and run by Node.js.
package conformance_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"

	"github.com/backplane-dev/backplane/internal/testenv"
)

const schema = "../graph/schema.graphql"

func TestSchema(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name    string
		command []string
	}{
		{"passes the default rules of a public linter", []string{"node_modules/graphql-schema-linter/lib/cli.js", schema}},
		{"serves clients of Relay", []string{"relay.mjs", schema}},
		{"gives typed clients their types", []string{"codegen.mjs", schema}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			node(t, tt.command...)
		})
	}
}

func TestServer_follows_GraphQL_over_HTTP(t *testing.T) {
	t.Parallel()
	needPackages(t)
	server := testenv.Server(t, "BACKPLANE_RATE_LIMIT=off")
	node(t, "audit.mjs", server.BaseURL+"/graphql")
	// Tools that read the schema of a running server, with the encodings that they accept.
	node(t, "codegen.mjs", server.BaseURL+"/graphql")
	node(t, "codegen.mjs", server.BaseURL+"/schema.graphql")
	node(t, "relay.mjs", server.BaseURL+"/schema.graphql")
}

// node runs a script and fails the test, with what it said, unless it succeeds.
func node(t *testing.T, command ...string) {
	t.Helper()
	needPackages(t)
	nodeIn(t, ".", command...)
}

func nodeIn(t *testing.T, dir string, command ...string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), testenv.Node(t), command...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "NO_COLOR=1")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Errorf("%s: %v\n%s", command[0], err, out)
		return
	}
	t.Logf("%s", bytes.TrimSpace(out))
}

// needPackages leaves the test out unless the npm packages are installed or can
// be, and skips it in short runs: none of this is ours to find races in.
func needPackages(t *testing.T) {
	t.Helper()
	needPackagesOf(t, packages)
}

func needPackagesOf(t *testing.T, packages func() error) {
	t.Helper()
	if testing.Short() {
		t.Skip("short run")
	}
	testenv.Node(t)
	if err := packages(); err != nil {
		testenv.LeaveOut(t, "An npm package", err)
	}
}

var packages = sync.OnceValue(func() error { return installPackages(".") })

// installPackages installs what package-lock.json of the directory says, unless that is done: a
// stamp next to the packages names the lock file they are for.
func installPackages(dir string) error {
	lock, err := os.ReadFile(filepath.Join(dir, "package-lock.json"))
	if err != nil {
		return err
	}
	sum := sha256.Sum256(lock)
	want := hex.EncodeToString(sum[:])
	stamp := filepath.Join(dir, "node_modules", ".installed-from")
	if got, err := os.ReadFile(stamp); err == nil && string(got) == want {
		return nil
	}
	cmd := exec.Command("npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund")
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("npm ci: %w: %s", err, out)
	}
	return os.WriteFile(stamp, []byte(want), 0o600)
}
