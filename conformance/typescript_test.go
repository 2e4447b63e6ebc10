package conformance_test

import (
	"flag"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/backplane-dev/backplane/internal/testenv"
)

// clientDir holds the TypeScript package for pages, whose build is committed.
const clientDir = "../clients/typescript"

var update = flag.Bool("update", false, "write the build of clients/typescript")

var clientPackages = sync.OnceValue(func() error { return installPackages(clientDir) })

func TestTypeScript_client_is_built_and_small(t *testing.T) {
	t.Parallel()
	needPackagesOf(t, clientPackages)
	out := t.TempDir()
	nodeIn(t, clientDir, "node_modules/typescript/bin/tsc", "--outDir", out)
	if *update {
		if err := os.RemoveAll(clientDir + "/dist"); err != nil {
			t.Fatal(err)
		}
		if err := os.CopyFS(clientDir+"/dist", os.DirFS(out)); err != nil {
			t.Fatal(err)
		}
	}
	if diff := cmp.Diff(readAll(t, out), readAll(t, clientDir+"/dist")); diff != "" {
		t.Errorf("clients/typescript/dist is not what its sources build; run go test ./conformance -run TestTypeScript -update (-want +got):\n%s", diff)
	}
	nodeIn(t, clientDir, "test/size.mjs")
}

func TestTypeScript_client_renews_tokens_once(t *testing.T) {
	t.Parallel()
	needPackagesOf(t, clientPackages)
	nodeIn(t, clientDir, "--test", "test/session.test.mjs")
}

func TestTypeScript_client_loses_no_event(t *testing.T) {
	t.Parallel()
	needPackagesOf(t, clientPackages)
	server := testenv.ServerWith(t, []string{"--demo"}, "BACKPLANE_RATE_LIMIT=off", "BACKPLANE_ACCESS_TOKEN_TIME=4s")
	nodeWithServer(t, server, clientDir, "test/live.mjs", server.BaseURL+"/graphql")
}

// TestTypeScript_client_loses_no_event_in_a_browser runs the pages of docs/frontend.md.
func TestTypeScript_client_loses_no_event_in_a_browser(t *testing.T) {
	t.Parallel()
	needPackagesOf(t, clientPackages)
	browser := testenv.Browser(t)
	pages := fmt.Sprintf("http://127.0.0.1:%d", testenv.FreePort(t))
	server := testenv.ServerWith(t, []string{"--demo"}, "BACKPLANE_RATE_LIMIT=off", "BACKPLANE_ACCESS_TOKEN_TIME=4s", "BACKPLANE_CORS_ORIGINS="+pages)
	nodeWithServer(t, server, clientDir, "test/pages.mjs", server.BaseURL+"/graphql", pages, browser)
}

func readAll(t *testing.T, dir string) map[string]string {
	t.Helper()
	all := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.IsDir() {
			return err
		}
		text, err := os.ReadFile(path)
		all[strings.TrimPrefix(path, dir)] = string(text)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// TestNode_client_has_the_types_that_it_states checks the JSDoc of clients/node.
func TestNode_client_has_the_types_that_it_states(t *testing.T) {
	t.Parallel()
	needPackagesOf(t, clientPackages)
	files, err := filepath.Glob("../clients/node/lib/*.js")
	if err != nil || len(files) == 0 {
		t.Fatalf("clients/node has no files: %v", err)
	}
	command := []string{
		clientDir + "/node_modules/typescript/bin/tsc", "--allowJs", "--checkJs", "--noEmit", "--strict", "--target", "es2023",
		"--lib", "es2023,dom,dom.iterable,dom.asynciterable", "--module", "nodenext", "--typeRoots", t.TempDir(),
	}
	nodeIn(t, ".", append(command, files...)...)
}
