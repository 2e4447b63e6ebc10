package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"runtime/debug"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/backplane-dev/backplane/internal/auth"
	"github.com/backplane-dev/backplane/internal/config"
	"github.com/backplane-dev/backplane/internal/demo"
	"github.com/backplane-dev/backplane/internal/executor"
	"github.com/backplane-dev/backplane/internal/httpd"
	"github.com/backplane-dev/backplane/internal/httpd/connection"
	"github.com/backplane-dev/backplane/internal/legacy"
	"github.com/backplane-dev/backplane/internal/rest"
	"github.com/backplane-dev/backplane/internal/session"
)

// command is what backplane NAME does.
type command struct {
	name    string
	summary string // one line for the list of commands
	about   string // what a newcomer must know
	args    int    // how many arguments it takes beside its flags
	prepare func(flags *flag.FlagSet) func(ctx context.Context, a *app) error
}

func commands() []command {
	return []command{
		{name: "serve", summary: "serve the API until it is told to stop (the default command)", prepare: prepareServe,
			about: "Serves GraphQL at /graphql and GraphiQL at /. SIGTERM or Ctrl-C lets the requests in flight end, for up to ten seconds."},
		{name: "migrate", summary: "bring the database up to date", prepare: prepareMigrate,
			about: "Applies the migrations that the database lacks, each whole or not at all. Any number of nodes may do it at once: one of them does.\nOn SQLite every command does it by itself."},
		{name: "seed", summary: "fill an empty database with made-up users, products and orders", prepare: prepareSeed,
			about: "Makes the same data every time it is given the same sizes. The users have no passwords. A database that is not empty is left alone."},
		{name: "apikey", summary: "make an API key for a user, and print it once", prepare: prepareAPIKey,
			about: "The key acts for the user, within its scopes: send it as \"Authorization: Bearer KEY\"."},
		{name: "keys", summary: "list the keys that sign access tokens; \"keys rotate\" makes a new one", args: 1, prepare: prepareKeys,
			about: "A new key is published a minute before it signs; the old one stays published until the last token it signed has expired."},
		{name: "services", summary: "list the services; \"services NAME\" lists the instances of one", args: 1, prepare: prepareServices,
			about: "Reads what is stored, beside any server."},
		{name: "pick", summary: "pick an instance of a service, and print its URL", args: 1, prepare: preparePick,
			about: "Usage: backplane pick NAME. Picks as a node would that has just started; it changes nothing, and no outcome is reported."},
		{name: "consumers", summary: "list what reads the event log by name, and how far it is", prepare: prepareConsumers,
			about: "Consumers work inside the server; sinks export the log. Each runs on one node at a time."},
		{name: "deadletters", summary: "list events that consumers could not work on; \"deadletters show ID\" and \"deadletters replay\"", args: 2, prepare: prepareDeadLetters,
			about: "list shows those that wait, show ID one of them with its event and its error. replay ID asks for a replay of all that wait of its subject,\nreplay --consumer NAME of all that wait of the consumer: the server that runs the consumer works on them within seconds."},
		{name: "sinks", summary: "list how far each sink is; \"sinks forget NAME\" removes its place", args: 2, prepare: prepareSinks,
			about: "A sink has a place in the event log, which holds retention back until the sink is past it.\nForget one that is not configured any more; one that is begins anew then. Nobody may be exporting to it: stop the servers that do."},
		{name: "legacy", summary: "list who still calls the routes of the old world", prepare: prepareLegacy,
			about: "Shows each route with its clients (API keys, or what programs call themselves), how often they called it, and when last.\nA running server stores what it has counted every few seconds."},
		{name: "doctor", summary: "check configuration and data, and say what to mend", prepare: prepareDoctor,
			about: "Reads only. It ends with status 1 if it finds anything."},
		{name: "version", summary: "print the version", prepare: prepareVersion, about: "Prints the version and the Go release it was built with."},
	}
}

// findCommand returns the command that the arguments name, and its own arguments.
func findCommand(args []string) (command, []string, error) {
	name := "serve"
	if len(args) > 0 && !strings.HasPrefix(args[0], "-") {
		name, args = args[0], args[1:]
	} else if len(args) > 0 && (args[0] == "-h" || args[0] == "--help" || args[0] == "-help") {
		name, args = "help", nil
	}
	if name == "help" {
		return command{name: "help", prepare: func(*flag.FlagSet) func(context.Context, *app) error { return overview }}, nil, nil
	}
	for _, c := range commands() {
		if c.name == name {
			return c, args, nil
		}
	}
	return command{}, nil, fmt.Errorf("there is no command %q; see backplane help", name)
}

func overview(_ context.Context, a *app) error {
	fmt.Fprint(a.out, "Backplane is a GraphQL API server for users, orders and services.\n\nUsage: backplane COMMAND [FLAGS]\n\nCommands:\n")
	w := tabwriter.NewWriter(a.out, 0, 0, 2, ' ', 0)
	for _, c := range commands() {
		fmt.Fprintf(w, "  %s\t%s\n", c.name, c.summary)
	}
	if err := w.Flush(); err != nil {
		return err
	}
	_, err := fmt.Fprintln(a.out, "\nbackplane COMMAND --help says more, and lists all settings.")
	return err
}

func (c command) help(flags *flag.FlagSet) string {
	return fmt.Sprintf("backplane %s: %s\n\n%s\n\n%s", c.name, c.summary, c.about, config.Help(flags))
}

func prepareServe(flags *flag.FlagSet) func(context.Context, *app) error {
	demo := flags.Bool("demo", false, "fill an empty database with demo data, and print how to sign in")
	migrate := flags.Bool("migrate", false, "bring the database up to date first; on SQLite that is always done")
	return func(ctx context.Context, a *app) error { return serve(ctx, a, *demo, *migrate) }
}

func prepareMigrate(flags *flag.FlagSet) func(context.Context, *app) error {
	restored := flags.Bool("after-restore", false, "the database was restored from a backup: refuse event cursors of before; run it while no server runs")
	return func(ctx context.Context, a *app) error {
		db, err := openDatabase(ctx, a.cfg, true)
		if err != nil {
			return err
		}
		if *restored {
			if err := db.RenewTimeline(ctx); err != nil {
				return errors.Join(err, db.Close())
			}
			fmt.Fprintln(a.out, "event cursors of before the restore are refused from now on")
		}
		fmt.Fprintf(a.out, "%s is up to date\n", a.cfg.Database)
		return db.Close()
	}
}

func prepareSeed(flags *flag.FlagSet) func(context.Context, *app) error {
	users := flags.Int("users", 1000, "how many users")
	orders := flags.Int("orders", 5000, "how many orders")
	lines := flags.Int("lines", 3, "lines of an order, at most")
	return func(ctx context.Context, a *app) error {
		n, err := newNode(ctx, a, false)
		if err != nil {
			return err
		}
		defer n.db.Close()
		size := demo.Size{Users: *users, Orders: *orders, Lines: *lines}
		if err := demo.Fill(ctx, n.db, size, progressBar(a.out)); err != nil {
			return err
		}
		_, err = fmt.Fprintf(a.out, "\nmade %d users and %d orders; the users have no passwords\n", *users, *orders)
		return err
	}
}

// progressBar returns a function that draws how far a long work has come.
func progressBar(out io.Writer) func(done, total int) {
	const width = 40
	shown := -1
	return func(done, total int) {
		percent := 100
		if total > 0 {
			percent = 100 * done / total
		}
		if percent == shown {
			return
		}
		shown = percent
		full := width * percent / 100
		fmt.Fprintf(out, "\r[%s%s] %3d %%", strings.Repeat("#", full), strings.Repeat(" ", width-full), percent)
	}
}

func prepareAPIKey(flags *flag.FlagSet) func(context.Context, *app) error {
	owner := flags.String("user", "", "`NAME` of the user that the key acts for")
	name := flags.String("name", "", "what to call the key")
	scopes := flags.String("scopes", "", "what it may do, with commas between: "+scopeList())
	life := flags.Duration("for", 90*24*time.Hour, "how long it shall work, at most 8784h (366 days)")
	return func(ctx context.Context, a *app) error {
		if *owner == "" || *name == "" || *scopes == "" {
			return errors.New("apikey needs --user, --name and --scopes; see backplane apikey --help")
		}
		n, err := newNode(ctx, a, false)
		if err != nil {
			return err
		}
		defer n.db.Close()
		u, err := n.db.Users().ByUsername(ctx, *owner)
		if err != nil {
			return err
		}
		expires := now().Add(*life)
		in := session.CreateAPIKeyInput{Name: *name, ExpiresAt: &expires}
		for s := range strings.SplitSeq(*scopes, ",") {
			in.Scopes = append(in.Scopes, auth.Scope(strings.TrimSpace(s)))
		}
		key, secret, err := n.sessions.IssueAPIKey(ctx, u.ID, in)
		if err != nil {
			return err
		}
		_, err = fmt.Fprintf(a.out, "%s\n\nThis is the key %s of %s. It works until %s and is not shown again.\n",
			secret, key.ID, u.Username, key.ExpiresAt.Format(time.RFC3339))
		return err
	}
}

func scopeList() string {
	var names []string
	for _, s := range auth.Scopes() {
		names = append(names, string(s))
	}
	return strings.Join(append(names, string(auth.ServiceScope("NAME"))), ", ")
}

func prepareKeys(*flag.FlagSet) func(context.Context, *app) error {
	return func(ctx context.Context, a *app) error {
		n, err := newNode(ctx, a, false)
		if err != nil {
			return err
		}
		defer n.db.Close()
		switch a.flags.Arg(0) {
		case "", "list":
			return n.listKeys(ctx, a.out)
		case "rotate":
			key, err := n.sessions.RotateSigningKey(ctx)
			if err != nil {
				return err
			}
			_, err = fmt.Fprintf(a.out, "key %s signs from %s on\n", key.ID, key.SignsAt.Format(time.RFC3339))
			return err
		default:
			return fmt.Errorf("keys does not know %q; it knows list and rotate", a.flags.Arg(0))
		}
	}
}

func (n *node) listKeys(ctx context.Context, out io.Writer) error {
	keys, err := n.db.Sessions().SigningKeys(ctx)
	if err != nil {
		return err
	}
	w := tabwriter.NewWriter(out, 0, 0, 3, ' ', 0)
	fmt.Fprint(w, "key\tmade\tsigns from\n")
	for _, k := range keys {
		fmt.Fprintf(w, "%s\t%s\t%s\n", k.ID, k.CreatedAt.Format(time.RFC3339), k.SignsAt.Format(time.RFC3339))
	}
	return w.Flush()
}

func prepareDoctor(*flag.FlagSet) func(context.Context, *app) error {
	return func(ctx context.Context, a *app) error {
		n, err := newNode(ctx, a, false)
		if err != nil {
			return err
		}
		defer n.db.Close()
		findings, err := n.db.Audit(ctx)
		if err != nil {
			return err
		}
		var report []string
		for _, f := range findings {
			report = append(report, fmt.Sprintf("%s does not hold for %s: %s", f.Check, f.Subject, f.Detail))
		}
		stuck, err := n.lagging(ctx)
		if err != nil {
			return err
		}
		report = append(report, stuck...)
		if !n.box.Protected() {
			report = append(report, "BACKPLANE_SECRET_KEY is not set: whoever reads the database can read its secrets. "+
				"Set it to 32 random characters or more, the same on every node.")
		}
		strange, err := n.strangeSinks(ctx, a.cfg.Sinks)
		if err != nil {
			return err
		}
		return tell(a.out, append(report, strange...))
	}
}

// tell prints what the doctor found; it returns an error if that is anything.
func tell(out io.Writer, report []string) error {
	if len(report) == 0 {
		_, err := fmt.Fprintln(out, "all is well")
		return err
	}
	fmt.Fprintln(out, "- "+strings.Join(report, "\n- "))
	return fmt.Errorf("the doctor found %d things to mend", len(report))
}

// version is set when a release is built.
var version = ""

func prepareVersion(*flag.FlagSet) func(context.Context, *app) error {
	return func(_ context.Context, a *app) error {
		v, goVersion := version, "an unknown Go release"
		if info, ok := debug.ReadBuildInfo(); ok {
			goVersion = info.GoVersion
			if v == "" {
				v = info.Main.Version
			}
		}
		_, err := fmt.Fprintf(a.out, "backplane %s, built with %s\n", v, goVersion)
		return err
	}
}

func operationLimits(l config.Limits) executor.Limits {
	return executor.Limits{
		Tokens: l.Tokens, Operations: l.Operations, Fields: l.Fields, ExpandedFields: l.ExpandedFields,
		Fragments: l.Fragments, FragmentDepth: l.FragmentDepth, Depth: l.Depth, Aliases: l.Aliases, RootFields: l.RootFields,
		Directives: l.Directives, Complexity: l.Cost, Errors: l.Errors, Response: l.ResponseBytes, Time: l.RequestTime,
	}
}

var _ httpd.Expirer = (*session.Service)(nil) // so that streams end with the word that the token has expired

func httpConfig(c config.Config) httpd.Config {
	return httpd.Config{
		BodyBytes: int64(c.Limits.BodyBytes), BodyTime: c.Limits.BodyTime, HeaderBytes: c.Limits.HeaderBytes, HeaderTime: c.Limits.HeaderTime,
		Operations: c.Limits.ConcurrentRequests, Batch: c.Limits.Batch,
		WriteTime: c.Limits.WriteTime, IdleTime: c.Limits.IdleTime, DrainTime: c.Limits.DrainTime, QueueTime: c.Limits.QueueTime,
		AllowedOrigins: c.CORSOrigins, TrustedProxies: c.TrustedProxies, TrustedNetworks: networks(c.TrustedNetworks),
		Streams: connection.Config{
			Connections: c.Limits.Connections, PerPrincipal: c.Limits.UserConnections, Operations: c.Limits.SocketOperations,
			MessageBytes: c.Limits.MessageBytes, InitTime: c.Limits.InitTime, IdleTime: c.Limits.SocketIdleTime, KeepAlive: c.Limits.KeepAlive,
			StallTime: c.Limits.StallTime,
		},
	}
}

func networks(trusted []config.TrustedNetwork) []httpd.TrustedNetwork {
	all := make([]httpd.TrustedNetwork, len(trusted))
	for i, n := range trusted {
		all[i] = httpd.TrustedNetwork{Prefix: n.Prefix, Key: string(n.Key)}
	}
	return all
}

func restConfig(c config.Config, used *legacy.Counter) rest.Config {
	out := rest.Config{Folder: c.RESTOperations, Reserved: httpd.Reserved(), Used: used.Note}
	for _, d := range c.RESTDeprecated {
		out.Deprecated = append(out.Deprecated, rest.Deprecation(d))
	}
	return out
}
