package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/backplane-dev/backplane/internal/testenv/local"
)

// setup is what a run has started.
type setup struct {
	options    options
	out        io.Writer
	dir        string // of SQLite's files and logs
	binary     string
	postgres   *local.Server
	postmaster int // its process id
	redis      *local.Server
	targets    []*target
	sample     *sample
	databases  int
}

const (
	login, password = "root", "correct horse battery staple"
	seedDatabase    = "bench_seed"
)

// openSetup starts the databases and targets.
func openSetup(ctx context.Context, o options, out io.Writer) (s *setup, err error) {
	s = &setup{options: o, out: out, sample: &sample{run: fmt.Sprintf("new-%x", time.Now().Unix())}}
	defer func() {
		if err != nil {
			s.close()
		}
	}()
	if s.dir, err = os.MkdirTemp("", "backplane-bench-"); err != nil {
		return s, err
	}
	if s.binary = o.binary; s.binary == "" {
		s.binary = filepath.Join(s.dir, "backplane")
		if text, err := exec.CommandContext(ctx, "go", "build", "-trimpath", "-o", s.binary, "github.com/backplane-dev/backplane").CombinedOutput(); err != nil {
			return s, fmt.Errorf("build the server: %w: %s", err, text)
		}
	}
	if s.postgres, err = local.DurablePostgres(); err != nil {
		return s, err
	}
	if err := s.fillSeed(ctx); err != nil {
		return s, fmt.Errorf("fill the database: %w", err)
	}
	for name := range strings.SplitSeq(o.targets, ",") {
		if err := s.startTarget(ctx, name); err != nil {
			return s, fmt.Errorf("start %s: %w", name, err)
		}
	}
	if o.baseline != "" {
		if err := s.startTarget(ctx, "baseline"); err != nil {
			return s, fmt.Errorf("start the baseline: %w", err)
		}
	}
	return s, nil
}

func (s *setup) close() {
	for _, t := range s.targets {
		t.stop()
	}
	s.redis.Stop()
	s.postgres.Stop()
	if s.dir != "" {
		_ = os.RemoveAll(s.dir) // what is left is in the directory for such files
	}
}

// fillSeed fills the database that those of the targets are copies of: all its events have their positions.
func (s *setup) fillSeed(ctx context.Context) error {
	if err := s.onPostgres(ctx, "CREATE DATABASE "+seedDatabase); err != nil {
		return err
	}
	first := s.binary
	if s.options.baseline != "" {
		first = s.options.baseline // an older one would refuse what a newer one has migrated
	}
	start := time.Now()
	if err := s.seed(ctx, first, s.urlOf(seedDatabase)); err != nil {
		return err
	}
	t := &target{name: "seed"}
	if err := s.startProduct(ctx, t, first, s.urlOf(seedDatabase)); err != nil {
		return err
	}
	defer t.stop()
	if err := s.addCallers(ctx, t); err != nil {
		return err
	}
	conn, err := pgx.Connect(ctx, s.urlOf(seedDatabase))
	if err != nil {
		return err
	}
	defer conn.Close(ctx)
	for waiting := 1; waiting > 0; {
		if err := conn.QueryRow(ctx, `SELECT COUNT(*) FROM events WHERE position IS NULL`).Scan(&waiting); err != nil {
			return err
		}
		if err := pause(ctx, 100*time.Millisecond); err != nil {
			return err
		}
	}
	if err := s.readSample(ctx, conn); err != nil {
		return err
	}
	t.stop()
	_, err = conn.Exec(ctx, `VACUUM ANALYZE`)
	fmt.Fprintf(s.out, "%d users and %d orders in %v\n", s.options.users, s.options.orders, time.Since(start).Round(time.Second))
	return err
}

func (s *setup) seed(ctx context.Context, binary, url string) error {
	if err := s.command(ctx, binary, url, "migrate"); err != nil {
		return err
	}
	return s.command(ctx, binary, url, "seed", "--users", fmt.Sprint(s.options.users), "--orders", fmt.Sprint(s.options.orders), "--lines", "3")
}

// command runs a command of the product.
func (s *setup) command(ctx context.Context, binary, url string, args ...string) error {
	cmd := exec.CommandContext(ctx, binary, args...)
	cmd.Env, cmd.Dir = s.environment(url), s.dir
	if text, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("backplane %s: %w: %s", args[0], err, text)
	}
	return nil
}

// environment is that of the product.
func (s *setup) environment(url string, more ...string) []string {
	env := slices.DeleteFunc(os.Environ(), func(v string) bool { return strings.HasPrefix(v, "BACKPLANE_") })
	return append(env, append([]string{
		"BACKPLANE_DATABASE_URL=" + url, "BACKPLANE_SECRET_KEY=0123456789abcdef0123456789abcdef", "BACKPLANE_ADMIN_LISTEN=off", "BACKPLANE_STOP_DELAY=0s",
		"BACKPLANE_RATE_LIMIT=off", "BACKPLANE_ADMIN_USERNAME=" + login, "BACKPLANE_ADMIN_PASSWORD=" + password,
	}, more...)...)
}

// readSample chooses what requests ask for. It also gives the hot products stock for the whole run.
func (s *setup) readSample(ctx context.Context, conn *pgx.Conn) (err error) {
	for into, query := range map[*[]string]string{
		&s.sample.users:  `SELECT user_id FROM orders GROUP BY user_id ORDER BY md5(user_id) LIMIT 2000`,
		&s.sample.before: `SELECT to_char(placed_at, 'YYYY-MM-DD"T"HH24:MI:SS"Z"') FROM orders WHERE placed_at > (SELECT MIN(placed_at) FROM orders) + interval '60 days' ORDER BY md5(id) LIMIT 32`,
		&s.sample.skus:   `SELECT sku FROM products WHERE active ORDER BY md5(sku) DESC LIMIT 200`,
		&s.sample.hot:    `SELECT sku FROM products WHERE active ORDER BY md5(sku) LIMIT 3`,
	} {
		rows, err := conn.Query(ctx, query)
		if err != nil {
			return err
		}
		if *into, err = pgx.CollectRows(rows, pgx.RowTo[string]); err != nil {
			return err
		}
	}
	if len(s.sample.skus) < 10 || len(s.sample.hot) < 3 || len(s.sample.before) == 0 {
		return errors.New("there are too few rows")
	}
	_, err = conn.Exec(ctx, `UPDATE stocks SET quantity = quantity + 10000000, received = received + 10000000`)
	return err
}

// startTarget starts the target of the name.
func (s *setup) startTarget(ctx context.Context, name string) (err error) {
	t := &target{name: name}
	s.targets = append(s.targets, t)
	create := func() (string, error) {
		s.databases++
		t.database = fmt.Sprint("bench_", s.databases)
		return s.urlOf(t.database), s.onPostgres(ctx, "CREATE DATABASE "+t.database+" TEMPLATE "+seedDatabase)
	}
	product := func(binary string, more ...string) error {
		u, err := create()
		if err != nil {
			return err
		}
		if err := s.command(ctx, binary, u, "migrate"); err != nil { // the copy may be of an older build
			return err
		}
		return s.startProduct(ctx, t, binary, u, more...)
	}
	switch name {
	case "static":
		return t.startPeer(ctx, "")
	case "handwritten":
		u, err := create()
		if err != nil {
			return err
		}
		return t.startPeer(ctx, u)
	case "planned":
		return product(s.binary)
	case "cold":
		return product(s.binary, "BACKPLANE_CACHE_BYTES=0")
	case "gqlgen":
		return product(s.binary, "BACKPLANE_EXECUTOR=gqlgen")
	case "redis":
		if s.redis, err = local.Redis(); err != nil {
			return err
		}
		return product(s.binary, "BACKPLANE_REDIS_URL="+s.redis.URL)
	case "sqlite":
		return s.startSQLite(ctx, t)
	case "baseline":
		return product(s.options.baseline, strings.FieldsFunc(s.options.baselineEnv, func(r rune) bool { return r == ',' })...)
	}
	return errors.New("there is no such target")
}

// startSQLite fills a file with the same rows as those of the other targets and serves it.
func (s *setup) startSQLite(ctx context.Context, t *target) error {
	url := "sqlite:" + filepath.Join(s.dir, "bench.db")
	if err := s.seed(ctx, s.binary, url); err != nil {
		return err
	}
	if err := s.startProduct(ctx, t, s.binary, url); err != nil {
		return err
	}
	if err := s.addCallers(ctx, t); err != nil {
		return err
	}
	if err := s.signIn(ctx, t, login); err != nil {
		return err
	}
	for _, sku := range s.sample.hot {
		product, err := t.ask(ctx, `query($sku: String!) { productBySku(sku: $sku) { id } }`, map[string]any{"sku": sku})
		if err != nil {
			return err
		}
		id := product["productBySku"].(map[string]any)["id"]
		if _, err := t.ask(ctx, `mutation($id: ID!) { adjustStock(input: {productId: $id, by: 1000000}) { userErrors { code } } }`, map[string]any{"id": id}); err != nil {
			return err
		}
	}
	return nil
}

// startProduct starts the binary.
func (s *setup) startProduct(ctx context.Context, t *target, binary, url string, more ...string) error {
	port, err := local.FreePort()
	if err != nil {
		return err
	}
	t.addr, t.signsIn = local.Address(port), true
	file, err := os.Create(filepath.Join(s.dir, t.name+".log")) // as users keep it, with the access log
	if err != nil {
		return err
	}
	defer file.Close()
	cmd := exec.CommandContext(ctx, binary, "serve")
	cmd.Env, cmd.Dir = s.environment(url, append(more, "BACKPLANE_LISTEN="+t.addr)...), s.dir
	cmd.Stdout, cmd.Stderr = file, file
	if err := t.start(ctx, cmd); err != nil {
		text, _ := os.ReadFile(file.Name())
		return fmt.Errorf("%w; it said: %.2000s", err, text)
	}
	return nil
}

func (s *setup) urlOf(database string) string {
	return strings.Replace(s.postgres.URL, "/postgres?", "/"+database+"?", 1)
}

func (s *setup) onPostgres(ctx context.Context, statement string) error {
	conn, err := pgx.Connect(ctx, s.postgres.URL)
	if err != nil {
		return err
	}
	defer conn.Close(ctx)
	if s.postmaster == 0 {
		var session int
		if err := conn.QueryRow(ctx, `SELECT pg_backend_pid()`).Scan(&session); err != nil {
			return err
		}
		st, err := readStat(session)
		if err != nil {
			return err
		}
		s.postmaster = st.parent
	}
	_, err = conn.Exec(ctx, statement)
	return err
}

// requestsOf returns the requests of a workload for a target, or nil if it has none.
func (s *setup) requestsOf(ctx context.Context, t *target, w *workload) (func(int) request, error) {
	if all := t.requests[w.name]; all != nil {
		return all, nil
	}
	all := w.prepared(w.product)
	if t.name == "handwritten" {
		all = w.prepared(w.peer)
		if err := s.checkSame(ctx, t, w); err != nil {
			return nil, err
		}
	}
	if t.name == "static" {
		p := s.named("planned")
		if p == nil {
			return nil, nil
		}
		response, err := p.once(ctx, w.product(0))
		if err != nil {
			return nil, err
		}
		path := "/" + url.PathEscape(w.name)
		if _, err := t.once(ctx, request{"PUT", path + "?status=" + fmt.Sprint(w.status), string(response)}); err != nil {
			return nil, err
		}
		all = func(int) request {
			r := w.product(0)
			r.path = path
			return r
		}
		if w.repeats > 0 {
			all = (&workload{repeats: 1}).prepared(all)
		}
	}
	if t.requests == nil {
		t.requests = make(map[string]func(int) request)
	}
	t.requests[w.name] = all
	return all, nil
}

// checkSame checks that the hand-written handler answers as the product does.
func (s *setup) checkSame(ctx context.Context, t *target, w *workload) error {
	p := s.named("planned")
	if p == nil || !w.same {
		return nil
	}
	for i := range 3 {
		theirs, err := t.once(ctx, w.peer(i))
		if err != nil {
			return err
		}
		ours, err := p.once(ctx, w.product(i))
		if err != nil {
			return err
		}
		if !bytes.Equal(bytes.TrimSpace(theirs), bytes.TrimSpace(ours)) {
			return fmt.Errorf("the hand-written handler answers %.600s, and the product %.600s", theirs, ours)
		}
	}
	return nil
}

// named returns the target of the name, signed in; nil if it does not take part.
func (s *setup) named(name string) *target {
	i := slices.IndexFunc(s.targets, func(t *target) bool { return t.name == name })
	if i < 0 {
		return nil
	}
	if err := s.signInAll(context.Background(), s.targets[i]); err != nil {
		return nil
	}
	return s.targets[i]
}

// addCallers creates the accounts by which requests come: one caller alone may use only a part of the
// server's connections.
func (s *setup) addCallers(ctx context.Context, t *target) error {
	if err := s.signIn(ctx, t, login); err != nil {
		return err
	}
	for _, name := range callers()[1:] {
		in := map[string]any{"username": name, "password": password, "roles": []string{"ADMIN"}}
		if _, err := t.ask(ctx, `mutation($in: CreateUserInput!) { createUser(input: $in) { user { id } userErrors { code } } }`, map[string]any{"in": in}); err != nil {
			return err
		}
	}
	t.tokens = nil
	return nil
}

// callers are the names of the accounts.
func callers() (names []string) {
	for i := range 8 {
		names = append(names, login+strings.Repeat("x", i))
	}
	return names
}

// tokenTime is how long access tokens are used. They are valid for five minutes, and outlive a measurement.
const tokenTime = 2 * time.Minute

// signInAll gives a target of the product access tokens.
func (s *setup) signInAll(ctx context.Context, t *target) error {
	if !t.signsIn || len(t.tokens) > 1 && time.Since(t.signedIn) < tokenTime {
		return nil
	}
	return s.signIn(ctx, t, callers()...)
}

func (s *setup) signIn(ctx context.Context, t *target, names ...string) error {
	t.tokens = nil
	var tokens []string
	for _, name := range names {
		data, err := t.ask(ctx, `mutation($in: SignInInput!) { signIn(input: $in) { session { accessToken } } }`, map[string]any{"in": map[string]string{"login": name, "password": password}})
		if err != nil {
			return fmt.Errorf("sign in: %w", err)
		}
		var payload struct {
			Session struct{ AccessToken string }
		}
		if err := json.Unmarshal([]byte(marshal(data["signIn"])), &payload); err != nil {
			return err
		}
		tokens = append(tokens, payload.Session.AccessToken)
	}
	t.tokens, t.signedIn = tokens, time.Now()
	return nil
}

func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}
