package cli_test

import (
	"bytes"
	"context"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/backplane-dev/backplane/internal/app"
	"github.com/backplane-dev/backplane/internal/cli"
	"github.com/backplane-dev/backplane/internal/config"
)

var update = flag.Bool("update", false, "rewrite the help texts in testdata")

// execute runs the command line; serving returns its environment and options.
func execute(t *testing.T, environ []string, args ...string) (out string, served *serving, err error) {
	t.Helper()
	var b bytes.Buffer
	err = cli.Run(t.Context(), cli.Process{Args: args, Environ: environ, Out: &b, ErrOut: &b}, func(_ context.Context, env app.Env, opts cli.ServeOptions) error {
		served = &serving{env, opts}
		return nil
	})
	return b.String(), served, err
}

type serving struct {
	env  app.Env
	opts cli.ServeOptions
}

// commands are all commands, and those of commands.
var commands = []string{
	"", "apikey", "completion", "config", "consumers", "deadletters", "deadletters list", "deadletters replay", "deadletters show", "doctor", "keys", "keys list", "keys revoke", "keys rotate", "keys rotate-master",
	"legacy", "man", "migrate", "pick", "register", "security", "security events", "seed", "serve", "services", "services drain", "services list", "services maintenance", "services metadata", "services payment-provider", "services show", "services strategy", "services undrain", "services weight", "sinks", "sinks forget", "sinks list", "sinks rewind", "users", "users activate", "users create", "users deactivate", "users list", "users set-password", "users set-roles", "users show", "version",
}

func TestHelp_of_each_command(t *testing.T) {
	t.Parallel()
	for _, name := range commands {
		t.Run("backplane "+name, func(t *testing.T) {
			t.Parallel()
			help, _, err := execute(t, []string{"BACKPLANE_LISTEN=wrong"}, append(strings.Fields(name), "--help")...)
			if err != nil {
				t.Fatal(err)
			}
			own, settings, found := strings.Cut(help, "\nEach setting is")
			path := filepath.Join("testdata", strings.ReplaceAll(strings.TrimSpace("backplane "+name), " ", "_")+".txt")
			if *update {
				if err := os.WriteFile(path, []byte(own), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(want), own); diff != "" {
				t.Errorf("the help is not %s; run make generate (-want +got):\n%s", path, diff)
			}
			if found {
				wantAllSettings(t, settings)
			}
		})
	}
}

func wantAllSettings(t *testing.T, help string) {
	t.Helper()
	for _, g := range config.Groups() {
		_, rest, ok := strings.Cut(help, "\n\n"+g.Name+":\n")
		if !ok {
			t.Errorf("the help has no group %q, or not in order", g.Name)
		}
		for _, s := range g.Settings {
			line := "  " + s.Variable() + "\n      " + strings.ReplaceAll(s.Describe(), "`", "") + "\n"
			if !strings.HasPrefix(rest, line) {
				t.Errorf("the help of %s is not %q, or not in order", s.Variable(), line)
			}
			rest = strings.TrimPrefix(rest, line)
		}
		help = "\n" + rest
	}
}

func TestRun_serves_by_default(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name   string
		args   []string
		listen string
		opts   cli.ServeOptions
	}{
		{"without arguments", nil, ":80", cli.ServeOptions{}},
		{"by name", []string{"serve"}, ":80", cli.ServeOptions{}},
		{"with a flag only", []string{"--demo"}, ":80", cli.ServeOptions{Demo: true}},
		{"with a setting as a flag", []string{"--listen", ":81"}, ":81", cli.ServeOptions{}},
		{"with one dash", []string{"serve", "-listen=:81", "-migrate"}, ":81", cli.ServeOptions{Migrate: true}},
		{"with a value that looks like a flag", []string{"-listen", ":82", "-log-format", "json", "-demo=false"}, ":82", cli.ServeOptions{}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			_, served, err := execute(t, []string{"BACKPLANE_LISTEN=:80"}, tt.args...)
			if err != nil || served == nil {
				t.Fatalf("Run = %v, served %v", err, served)
			}
			if served.env.Config.Listen != tt.listen || served.opts != tt.opts {
				t.Errorf("served on %s with %+v, want %s with %+v", served.env.Config.Listen, served.opts, tt.listen, tt.opts)
			}
		})
	}
}

func TestRun_refuses(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name, args, want string
	}{
		{"an unknown command", "frobnicate", `there is no command "frobnicate"; see backplane help`},
		{"a misspelt command", "migrat", `there is no command "migrat"; did you mean migrate?`},
		{"an unknown command of a command", "keys burn", `keys has no command "burn"; it has list, rotate, revoke and rotate-master`},
		{"an unknown flag", "serve --no-such-flag", "the configuration is wrong:\n  The arguments are wrong: unknown flag: --no-such-flag."},
		{"a flag without its value", "serve --listen", "the configuration is wrong:\n  The arguments are wrong: flag needs an argument: --listen."},
		{"a wrong setting", "serve --listen=here", "the configuration is wrong:\n  --listen is \"here\", but it must be host:port, with a port from 0 to 65535."},
		{"a wrong setting and an unknown flag together", "--listen=here --no-such-flag", "the configuration is wrong:\n  The arguments are wrong: unknown flag: --no-such-flag.\n" +
			"  --listen is \"here\", but it must be host:port, with a port from 0 to 65535."},
		{"an argument too many", "serve now", `serve takes no argument "now"; see backplane serve --help`},
		{"an argument too many of a command of a command", "keys rotate now", `rotate takes no argument "now"; see backplane keys rotate --help`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			_, served, err := execute(t, nil, strings.Fields(tt.args)...)
			if err == nil || err.Error() != tt.want || served != nil {
				t.Errorf("Run = %v, want %q", err, tt.want)
			}
		})
	}
}

func TestRun_needs_arguments(t *testing.T) {
	t.Parallel()
	database := "BACKPLANE_DATABASE_URL=sqlite:" + filepath.Join(t.TempDir(), "backplane.db")
	if _, _, err := execute(t, []string{database}, "migrate"); err != nil {
		t.Fatal(err)
	}
	for args, want := range map[string]string{
		"apikey":                            "apikey needs --user, --name and --scopes; see backplane apikey --help",
		"pick":                              "pick needs the name of a service, and --n of 1 or more; see backplane pick --help",
		"pick echo -n 0":                    "pick needs the name of a service, and --n of 1 or more; see backplane pick --help",
		"sinks forget":                      "sinks forget needs the name of the sink; backplane sinks lists them",
		"sinks rewind kafka":                "sinks rewind needs the name of the sink, and the cursor of the last event that is not to be exported again; backplane sinks lists the sinks",
		"deadletters show":                  "deadletters show needs the id of a dead letter; backplane deadletters lists them",
		"security events --since soon":      `--since is "soon", but it must be a time such as 2026-11-30T08:00:00Z or 24h`,
		"security events --type x.y":        `there is no type "x.y" of security events; docs/security.md lists them`,
		"security watch":                    `security has no command "watch"; it has events`,
		"services echo":                     `there is no service "echo"; backplane services lists all`,
		"services show":                     "backplane services show NAME: an argument is missing; see backplane services show --help",
		"services drain echo":               "backplane services drain SERVICE INSTANCE: an argument is missing; see backplane services drain --help",
		"services drain echo a":             `there is no service "echo"; backplane services lists all`,
		"services maintenance echo a maybe": `maintenance is on or off, not "maybe"`,
		"services weight echo a 1001":       `a weight is a whole number from 1 to 1000, not "1001"`,
		"services metadata echo a zone":     `metadata is NAME=VALUE, not "zone"`,
		"services strategy echo FASTEST":    `There is no strategy "FASTEST"; there are ROUND_ROBIN, RANDOM, LEAST_CONNECTIONS, POWER_OF_TWO, CONSISTENT_HASH.`,
	} {
		if _, _, err := execute(t, []string{database}, strings.Fields(args)...); err == nil || err.Error() != want {
			t.Errorf("%s: %v, want %q", args, err, want)
		}
	}
}

func TestRun_completes(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ args, want string }{
		{"__complete keys ro", "rotate\t"},
		{"__complete services main", "maintenance\t"},
		{"__complete services maintenance echo a o", "off\n"},
		{"__complete services strategy echo POW", "POWER_OF_TWO\n"},
		{"__complete serve --dem", "--demo\t"},
		{"__complete serve --listen", "--listen\t"},
		{"completion bash", "__start_backplane"},
		{"completion zsh", "#compdef backplane"},
		{"completion fish", "complete -c backplane"},
		{"completion powershell", "Register-ArgumentCompleter"},
	} {
		if out, _, err := execute(t, nil, strings.Fields(tt.args)...); err != nil || !strings.Contains(out, tt.want) {
			t.Errorf("%s printed %.200q, %v; want %q in it", tt.args, out, err, tt.want)
		}
	}
}

func TestRun_prints_the_manual_page(t *testing.T) {
	t.Parallel()
	out, _, err := execute(t, nil, "man")
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{".TH BACKPLANE 1", ".SH ENVIRONMENT", `BACKPLANE_LISTEN`, "deadletters replay [ID]", "--after-restore"} {
		if !strings.Contains(out, want) {
			t.Errorf("the manual page lacks %q", want)
		}
	}
}

func TestRun_prints_the_version(t *testing.T) {
	t.Parallel()
	for _, arg := range []string{"version", "--version"} {
		if out, _, err := execute(t, []string{"BACKPLANE_LISTEN=wrong"}, arg); err != nil || !strings.HasPrefix(out, "backplane ") || !strings.Contains(out, "built with go") {
			t.Errorf("%s printed %q, %v", arg, out, err)
		}
	}
}
