package cli_test

import (
	"bytes"
	"context"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/backplane-dev/backplane/internal/app"
	"github.com/backplane-dev/backplane/internal/cli"
)

// run runs the program and returns its exit code, standard output and standard error.
func run(t *testing.T, environ []string, args string) (code int, out, errOut string) {
	t.Helper()
	var o, e bytes.Buffer
	code = cli.Main(t.Context(), cli.Process{Args: strings.Fields(args), Environ: environ, Out: &o, ErrOut: &e}, func(context.Context, app.Env, cli.ServeOptions) error { return nil })
	return code, o.String(), e.String()
}

// migrated returns the environment of a new database, and its path.
func migrated(t *testing.T) (environ []string, path string) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "backplane.db")
	environ = []string{"BACKPLANE_DATABASE_URL=sqlite:" + path, "BACKPLANE_ADMIN_LISTEN=off"}
	if code, _, errOut := run(t, environ, "migrate"); code != 0 {
		t.Fatal(errOut)
	}
	return environ, path
}

func TestMain_has_an_exit_code_for_each_outcome(t *testing.T) {
	t.Parallel()
	environ, _ := migrated(t)
	environ = append(environ, "BACKPLANE_API_KEY=bpk_x") // as the owner of a service has it
	for args, want := range map[string]int{
		"version": 0, "--version": 0, "help": 0, "help keys rotate": 0, "keys --help": 0, "services": 0, "services --json": 0,
		"services echo": 1, "services drain echo a": 1, "services strategy echo RANDOM": 1, "services payment-provider echo on": 1, "users show ada": 1, "sinks forget gone": 1,
		"frobnicate": 2, "keys burn": 2, "serve now": 2, "services --no-such-flag": 2, "services drain echo": 2, "services maintenance echo a maybe": 2, "services weight echo a none": 2, "services metadata echo a zone": 2, "services strategy echo FASTEST": 2, "services payment-provider echo maybe": 2, "services --listen=here": 2, "apikey": 2, "pick": 2, "users show": 2,
		"doctor --trusted-networks=0.0.0.0/0=key_00000000000000000000000000": 2, "doctor --allowed-hosts=*": 0, "doctor --trusted-proxies=0.0.0.0/0": 3,
	} {
		if code, out, errOut := run(t, environ, args); code != want {
			t.Errorf("backplane %s exits with %d, want %d: %s%s", args, code, want, out, errOut)
		}
	}
}

func TestMain_reads_no_database_that_is_not_there(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	file := filepath.Join(dir, "none.db")
	garbage := filepath.Join(dir, "garbage.db")
	if err := os.WriteFile(garbage, []byte(strings.Repeat("no database ", 100)), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, command := range []string{
		"doctor", "services", "services drain echo a", "services strategy echo RANDOM", "services payment-provider echo off", "pick echo", "keys", "consumers", "deadletters", "sinks", "legacy", "users", "users show ada", "users create ada --no-password", "users deactivate ada", "security events",
		"apikey --user ada --name k --scopes orders:read",
	} {
		if code, _, errOut := run(t, []string{"BACKPLANE_DATABASE_URL=sqlite:" + file}, command); code != 1 || !strings.Contains(errOut, file) || !strings.Contains(errOut, "backplane migrate makes one") {
			t.Errorf("%s without a database exits with %d and says %q", command, code, errOut)
		}
		if _, err := os.Stat(file); err == nil {
			t.Fatalf("%s makes a database", command)
		}
		if code, _, errOut := run(t, []string{"BACKPLANE_DATABASE_URL=sqlite:" + garbage}, command); code != 1 || !strings.Contains(errOut, garbage) || !strings.Contains(errOut, "not a database") {
			t.Errorf("%s of a file that is no database exits with %d and says %q", command, code, errOut)
		}
		if code, _, errOut := run(t, []string{"BACKPLANE_DATABASE_URL=sqlite:" + dir}, command); code != 1 || !strings.Contains(errOut, dir) || !strings.Contains(errOut, "directory") {
			t.Errorf("%s of a folder exits with %d and says %q", command, code, errOut)
		}
	}
}

func TestMain_lists_as_tables_and_as_JSON(t *testing.T) {
	t.Parallel()
	environ, path := migrated(t)
	for _, args := range []string{"seed --users 3 --orders 3", "users create ada --no-password", "keys rotate"} {
		if code, _, errOut := run(t, environ, args); code != 0 || !strings.Contains(errOut, path) {
			t.Fatalf("%s exits with %d and says %q, want the database in it", args, code, errOut)
		}
	}
	for _, args := range []string{"services", "services list", "keys", "keys list", "consumers", "deadletters", "deadletters list", "sinks", "sinks list", "legacy", "users", "users list", "users show ada", "doctor", "config"} {
		code, table, errOut := run(t, environ, args)
		if code != 0 || table == "" || strings.Contains(table, path) != (args == "config") {
			t.Errorf("%s exits with %d and prints %q, %q", args, code, table, errOut)
		}
		if args != "config" && !strings.Contains(errOut, "database: "+path) {
			t.Errorf("%s does not say which database it reads: %q", args, errOut)
		}
		code, lines, errOut := run(t, environ, args+" --json")
		if code != 0 {
			t.Errorf("%s --json exits with %d: %s", args, code, errOut)
		}
		for line := range strings.Lines(lines) {
			if object := map[string]any{}; json.Unmarshal([]byte(line), &object) != nil || len(object) == 0 {
				t.Errorf("%s --json prints the line %q", args, line)
			}
		}
	}
	if code, out, errOut := run(t, environ, "security events --json"); code != 0 || !strings.HasPrefix(out, "{") {
		t.Errorf("security events --json exits with %d and prints %q, %q", code, out, errOut)
	}
	if _, out, _ := run(t, environ, "users show ada --json"); !strings.Contains(out, `"roles":["CUSTOMER"]`) || !strings.Contains(out, `"email":null`) || !strings.Contains(out, `"apiKeys":0`) {
		t.Errorf("users show ada --json printed %s", out)
	}
	if _, out, _ := run(t, environ, "doctor --json"); !strings.HasPrefix(out, `{"database":"`+path+`"}`) {
		t.Errorf("doctor --json printed %s", out)
	}
	if code, out, _ := run(t, environ, "apikey --user ada --name k --scopes orders:read"); code != 0 || !strings.HasPrefix(out, "bpk_") || strings.Count(out, "\n") != 1 || strings.Contains(out, " ") {
		t.Errorf("apikey writes %q, want the key alone", out)
	}
}

func TestConfig_prints_where_settings_come_from(t *testing.T) {
	t.Parallel()
	environ := []string{"BACKPLANE_DATABASE_URL=postgres://joe:hunter2secret@db.example.com/shop", "BACKPLANE_SECRET_KEY=0123456789012345678901234567890123456789", "BACKPLANE_LISTEN=:80", "BACKPLANE_DOCS="}
	code, out, errOut := run(t, environ, "config --json --listen :81 --log-level=warn")
	if code != 0 || strings.Contains(out, "hunter2secret") || strings.Contains(out, "0123456789") {
		t.Errorf("config exits with %d and prints %s%s", code, out, errOut)
	}
	for _, want := range []string{
		`{"setting":"BACKPLANE_LISTEN","value":":81","source":"flag"}`, `{"setting":"BACKPLANE_LOG_LEVEL","value":"warn","source":"flag"}`,
		`{"setting":"BACKPLANE_SECRET_KEY","value":"(hidden)","source":"environment"}`, `{"setting":"BACKPLANE_DOCS","value":"on","source":"default"}`,
		`{"setting":"BACKPLANE_REDIS_URL","value":null,"source":"default"}`, `@db.example.com/shop","source":"environment"}`,
	} {
		if !strings.Contains(out, want) {
			t.Errorf("config does not print %s", want)
		}
	}
	if code, out, _ := run(t, environ, "config --changed"); code != 0 || strings.Count(out, "\n") != 4 {
		t.Errorf("config --changed exits with %d and prints %s, want three settings", code, out)
	}
}

func TestSeed_writes_lines_of_progress_into_a_pipe(t *testing.T) {
	t.Parallel()
	environ, _ := migrated(t)
	code, out, errOut := run(t, environ, "seed --users 50 --orders 50")
	if code != 0 || strings.Contains(errOut, "\r") || !strings.Contains(errOut, "100 %\n") || strings.Count(errOut, " %\n") > 11 || !strings.HasPrefix(out, "created 50 users") {
		t.Errorf("seed exits with %d, prints %q and %q", code, out, errOut)
	}
}

func TestServe_logs_its_start_and_stop(t *testing.T) {
	t.Parallel()
	environ, path := migrated(t)
	_, _, log := run(t, append(environ, "BACKPLANE_ADMIN_USERNAME=root", "BACKPLANE_ADMIN_PASSWORD=hunter2secret"), "serve --log-format=json --listen=127.0.0.1:0")
	lines := strings.Split(strings.TrimSpace(log), "\n")
	if len(lines) != 2 || strings.Contains(log, "hunter2secret") {
		t.Fatalf("serve logged %s", log)
	}
	var start struct {
		Msg, Version, Database string
		Settings               map[string]string
	}
	if err := json.Unmarshal([]byte(lines[0]), &start); err != nil {
		t.Fatal(err)
	}
	if start.Msg != "backplane starts" || start.Version == "" || start.Database != path || start.Settings["BACKPLANE_LISTEN"] != "127.0.0.1:0" || len(start.Settings) != 5 {
		t.Errorf("serve logged its start as %+v", start)
	}
	if !strings.Contains(lines[1], `"backplane stops"`) {
		t.Errorf("serve logged its stop as %s", lines[1])
	}
}
