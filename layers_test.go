package main_test

import (
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// module is the path of this module.
const module = "github.com/backplane-dev/backplane"

// The groups of packages that the table speaks of.
const (
	leaves = "internal/auth internal/backoff internal/bounded internal/claim internal/coalesce internal/cursor internal/dbclock internal/entity internal/event internal/fairshare internal/fault internal/membudget internal/validate internal/money internal/monotime internal/page internal/secrets internal/security internal/requestlog internal/setting internal/signing internal/uid internal/writelimit"

	// A domain imports no other domain: what several need is in a leaf. A new one is
	// added here and to the table below.
	domains = "internal/legacy internal/order internal/payment internal/registry internal/session internal/user"
)

// mayImport says which packages of ours a package and those below it may
// import, besides each other. Who is not in it may not exist: every new package
// gets its place here first. Tests may import what they like.
var mayImport = map[string]string{
	".":                              "*", // server.go
	"bench":                          "internal/testenv/local",
	"client":                         "client/policy", // and the standard library, see its own test
	"conformance":                    "",
	"e2e":                            "internal/testenv internal/admin internal/app internal/cursor internal/event internal/secrets internal/signing internal/store",
	"examples":                       "client", // as programs of others
	"ent":                            leaves + " " + domains,
	"graph":                          leaves + " " + domains + " internal/executor internal/eventlog internal/securitylog internal/consumer",
	"internal/static":                "",
	"internal/sidecar":               "client",
	"internal/balance":               leaves + " internal/registry client/policy",
	"client/policy":                  "", // client stands on it
	"internal/admin":                 "internal/auth internal/connlimit internal/hostcheck internal/security",
	"internal/connlimit":             "internal/auth",
	"internal/hostcheck":             "",
	"internal/logwriter":             "",
	"internal/app":                   "*", // wires everything
	"internal/cli":                   "client internal/sidecar internal/admin internal/app internal/config internal/demo internal/logwriter " + leaves + " " + domains + " internal/balance internal/consumer internal/eventlog internal/export internal/lease internal/securitylog",
	"internal/notify":                leaves,
	"internal/lease":                 leaves,
	"internal/eventlog":              leaves + " internal/lease",
	"internal/securitylog":           leaves,
	"internal/eventlog/eventlogtest": "*", // nodes on a real database
	"internal/consumer":              leaves + " internal/lease internal/eventlog",
	"internal/export":                leaves + " internal/lease internal/eventlog",
	"internal/cache":                 leaves + " " + domains + " internal/eventlog",
	"internal/config":                leaves + " internal/consumer internal/eventlog internal/executor internal/gateway internal/httpd internal/payment internal/rest internal/securitylog", // whose settings it collects
	"internal/gateway":               leaves + " " + domains + " internal/balance internal/problem",
	"internal/httpd":                 leaves + " internal/static internal/executor internal/connlimit internal/hostcheck internal/problem",
	"internal/executor":              leaves,
	"internal/executor/plan":         "",
	"internal/payment/provider":      leaves + " internal/payment internal/registry internal/balance internal/gateway", // which has the guarded dialer
	"internal/payment/callback":      leaves + " internal/payment",
	"internal/problem":               "internal/fault internal/requestlog",
	"internal/rest":                  leaves + " internal/static internal/executor internal/problem internal/httpd/jsoncodec",
	"internal/demo":                  leaves + " " + domains + " internal/store",
	"internal/store":                 leaves + " " + domains + " ent internal/lease internal/eventlog internal/securitylog internal/consumer",
	"internal/testenv":               "*",
	"internal/testenv/local":         "", // builds even when the product does not
	"internal/testenv/run":           "internal/testenv/local",

	// A domain knows no other domain; a leaf knows leaves, and fault, seal,
	// telemetry and uid, on which the others stand, import no package of ours.
	"internal/legacy": leaves, "internal/order": leaves, "internal/payment": leaves, "internal/registry": leaves + " internal/lease", "internal/session": leaves, "internal/user": leaves,
	"internal/auth": leaves, "internal/backoff": "", "internal/claim": leaves + " internal/lease", "internal/coalesce": "", "internal/cursor": leaves, "internal/dbclock": "", "internal/entity": "internal/event internal/fault internal/uid", "internal/event": leaves, "internal/validate": leaves, "internal/money": leaves,
	"internal/fairshare": "internal/auth",
	"internal/membudget": "internal/auth internal/fairshare internal/fault",
	"internal/page":      "internal/fault",
	"internal/security":  leaves,
	"internal/fault":     "", "internal/secrets": "", "internal/requestlog": "internal/auth", "internal/setting": "", "internal/signing": "", "internal/uid": "", "internal/monotime": "", "internal/bounded": "", "internal/writelimit": "internal/auth internal/bounded internal/fault internal/security internal/setting",
}

// technology is what leaves and domains must not import, nor any other package
// but those that are named for it.
var technology = map[string]string{
	"database/sql":                 "ent examples internal/store",
	"entgo.io/ent":                 "ent internal/store",
	"github.com/99designs/gqlgen":  "graph internal/httpd internal/executor internal/rest",
	"github.com/coder/websocket":   "e2e internal/httpd",
	"github.com/jackc/pgx":         "bench internal/notify internal/store internal/testenv",
	"github.com/maypok86/otter":    "internal/cache",
	"github.com/redis/go-redis":    "internal/notify internal/export internal/cache internal/testenv",
	"github.com/vektah/gqlparser":  "graph internal/httpd internal/executor internal/rest",
	"modernc.org/sqlite":           "examples internal/store",
	"net/http":                     "bench client e2e examples internal/sidecar internal/static internal/gateway internal/connlimit internal/hostcheck internal/httpd internal/admin internal/demo internal/payment/callback internal/payment/provider internal/problem internal/rest internal/testenv",
	"github.com/nats-io/nats.go":   "internal/export internal/testenv",
	"github.com/rabbitmq/amqp091":  "internal/export internal/testenv",
	"github.com/golang-jwt/jwt/v5": "internal/session",
}

func TestLayers(t *testing.T) {
	t.Parallel()
	for _, pkg := range ourPackages(t) {
		layer, ok := layerOf(pkg.ImportPath)
		if !ok {
			t.Errorf("%s has no place in mayImport: say which packages it may import", pkg.ImportPath)
			continue
		}
		for _, imported := range pkg.Imports {
			checkImport(t, layer, pkg.ImportPath, imported)
		}
	}
}

func checkImport(t *testing.T, layer, importer, imported string) {
	t.Helper()
	if path, ours := strings.CutPrefix(imported, module+"/"); ours {
		if allowed := mayImport[layer]; allowed != "*" && !within(path, allowed) && !within(path, layer) {
			t.Errorf("%s imports %s; packages of the layer %s may import only: %s", importer, imported, layer, allowed)
		}
		return
	}
	for tech, users := range technology {
		if strings.HasPrefix(imported, tech) && layer != "." && !within(layer, users) {
			t.Errorf("%s imports %s, which is the business of: %s", importer, imported, users)
		}
	}
}

// layerOf returns the entry of mayImport that covers a package: its own or that
// of the nearest package above it.
func layerOf(importPath string) (layer string, ok bool) {
	layer = "."
	for path := range mayImport {
		if within(strings.TrimPrefix(importPath, module+"/"), path) && len(path) > len(layer) {
			layer, ok = path, true
		}
	}
	return layer, ok || importPath == module
}

// within reports whether the path is one of the packages or below one.
func within(path, packages string) bool {
	return slices.ContainsFunc(strings.Fields(packages), func(p string) bool {
		return path == p || strings.HasPrefix(path, strings.TrimSuffix(p, "/")+"/")
	})
}

type listedPackage struct {
	ImportPath string
	Imports    []string
}

func ourPackages(t *testing.T) (pkgs []listedPackage) {
	t.Helper()
	out, err := exec.Command("go", "list", "-json=ImportPath,Imports", "./...", module+"/client/...").Output() // client is a module of its own
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	for dec := json.NewDecoder(strings.NewReader(string(out))); ; {
		var p listedPackage
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			return pkgs
		} else if err != nil {
			t.Fatalf("read what go list says: %v", err)
		}
		pkgs = append(pkgs, p)
	}
}

// clockReads are the places of domains and wiring that read the clock of the machine, for spans within
// the process. Everything else gets the database's time.
var clockReads = map[string]int{"internal/payment/provider/call.go": 1, "internal/registry/checker.go": 1, "internal/app/domains.go": 1, "internal/app/executor.go": 1, "internal/app/payments.go": 1, "internal/app/registry.go": 1}

func TestDomains_read_no_clock(t *testing.T) {
	t.Parallel()
	for dir := range strings.FieldsSeq(domains + " internal/app internal/claim") {
		err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
			if err != nil || e.IsDir() || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") || strings.Contains(path, "sessiontest") {
				return err
			}
			text, err := os.ReadFile(path)
			if n := strings.Count(string(text), "time.Now"); n != clockReads[filepath.ToSlash(path)] {
				t.Errorf("%s reads the clock of the machine in %d places, want %d: rules use the database's time, DB.Clock", path, n, clockReads[path])
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
}

// TestPackages_measure_windows_by_monotonic_time finds Unix times of now, which step with the wall clock of the
// machine: a window that is kept as a number is one of monotime.
func TestPackages_measure_windows_by_monotonic_time(t *testing.T) {
	t.Parallel()
	unix := regexp.MustCompile(`(?:time\.Now\(\).*|\bnow)\.Unix(?:Nano|Micro|Milli)?\(`)
	for _, root := range []string{"client", "internal"} {
		err := filepath.WalkDir(root, func(path string, _ fs.DirEntry, err error) error {
			if err != nil || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") || strings.HasPrefix(path, "internal/testenv/") {
				return err
			}
			text, err := os.ReadFile(path)
			for n, line := range strings.Split(string(text), "\n") {
				if unix.MatchString(line) && !strings.Contains(line, "incarnation: ") { // which the next start of a program exceeds
					t.Errorf("%s:%d: a Unix time of now steps with the wall clock: use monotime, or the database's time", path, n+1)
				}
			}
			return err
		})
		if err != nil {
			t.Error(err)
		}
	}
}
