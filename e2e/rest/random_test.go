package rest

import (
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/backplane-dev/backplane/e2e/harness"
)

// perSeed is how many requests a seed stands for.
const perSeed = 50

// TestREST_keeps_its_document_under_random_requests sends what the OpenAPI document allows, in odd but
// legal forms, and much that it does not, to every operation. Nothing may be a fault of the server; every
// answer must be one that the document describes; an error must come without a change, a success with one;
// a call that is repeated under its idempotency key must be answered alike and change nothing. A seed that
// fails is named; add it to the file.
func TestREST_keeps_its_document_under_random_requests(t *testing.T) {
	t.Parallel()
	if testing.Short() {
		t.Skip("short run")
	}
	harness.OnEachDatabase(t, func(t *testing.T, database string) {
		f := newFuzzer(t, database)
		for _, seed := range keptSeeds(t) {
			f.play(t, seed, perSeed)
		}
		for range harness.Size(12, 4000) {
			if !t.Failed() {
				f.play(t, rand.Uint64(), perSeed)
			}
		}
		t.Logf("%d requests to %d operations; statuses: %v; %d odd forms, %d repeats and %d conditions compared", f.sent, len(f.document.operations), f.statuses, f.odd, f.repeated, f.conditions)
		var missed []string // by chance one or the other; recorded calls answer each of them well
		for _, op := range f.document.operations {
			if f.succeeded[op.name] == 0 {
				missed = append(missed, op.name)
			}
		}
		if f.odd == 0 || f.repeated == 0 || f.conditions == 0 || len(missed) > len(f.document.operations)/3 {
			t.Errorf("the test does not reach what it is for; %q were never answered well", missed)
		}
	})
}

// FuzzRoutes is the same, with few requests for each seed.
func FuzzRoutes(f *testing.F) {
	fuzz := newFuzzer(f, harness.Databases["SQLite"](f))
	for _, seed := range keptSeeds(f) {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, seed uint64) { fuzz.play(t, seed, 5) })
}

func keptSeeds(t testing.TB) (seeds []uint64) {
	t.Helper()
	text, err := os.ReadFile("testdata/rest/seeds")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if line = strings.TrimSpace(line); !strings.HasPrefix(line, "#") {
			seed, err := strconv.ParseUint(line, 10, 64)
			if err != nil {
				t.Fatal(err)
			}
			seeds = append(seeds, seed)
		}
	}
	return seeds
}

// fuzzer sends requests made of the document to a server.
type fuzzer struct {
	root                      harness.Caller
	db                        *sql.DB
	document                  *document
	seen                      map[string][]string // ids that answers showed, by the path of the list
	sent                      int
	odd, repeated, conditions int             // how many were compared
	used                      map[string]bool // idempotency keys
	statuses                  map[int]int
	succeeded                 map[string]int
}

func newFuzzer(t testing.TB, database string) *fuzzer {
	t.Helper()
	harness.RunCommand(t, database, "migrate")
	harness.RunCommand(t, database, "seed", "--users", "20", "--orders", "60", "--lines", "2") // orders in all states
	p := harness.StartServer(t, database)
	harness.SignUp(t, p, "guest") // so that a random sign-in can succeed
	root := harness.SignInAdmin(t, p)
	f := &fuzzer{root: root, db: openDatabase(t, database), document: readDocument(t, root), used: map[string]bool{}, statuses: map[int]int{}, seen: map[string][]string{}, succeeded: map[string]int{}}
	f.fill(t)
	return f
}

// fill creates a service with instances, and remembers the ids that there are.
func (f *fuzzer) fill(t testing.TB) {
	t.Helper()
	f.root.MustREST(t, http.StatusCreated, "POST /services", `{"name": "till"}`)
	for _, id := range []string{"a", "b", "c"} {
		f.root.MustREST(t, http.StatusOK, "PUT /services/till/instances/"+id, `{"url": "http://10.0.0.7:8080", "ttl": "10m"}`)
		f.seen["instances"] = append(f.seen["instances"], id)
	}
	for _, op := range f.document.operations {
		if op.method == http.MethodGet && !strings.Contains(op.path, "{") {
			f.remember(op, f.root.MustREST(t, http.StatusOK, "GET "+op.path, ""))
		}
	}
}

// play sends the first requests that a seed stands for.
func (f *fuzzer) play(t *testing.T, seed uint64, requests int) {
	t.Helper()
	g := &generator{rand.New(rand.NewPCG(seed, 0)), f}
	for i := range requests {
		op := f.document.operations[g.IntN(len(f.document.operations))]
		req := g.request(t, op)
		if err := f.check(t, op, req); err != nil {
			t.Errorf("seed %d, request %d: %s\n%v", seed, i, req, err)
		}
	}
}

// check sends a request and returns what is wrong with the answer.
func (f *fuzzer) check(t *testing.T, op described, req *request) error {
	t.Helper()
	req.repeat = f.used[req.header.Get("Idempotency-Key")] && req.header.Get("Idempotency-Key") != ""
	before := f.state(t)
	a, err := f.send(req)
	if err != nil || a == nil {
		return err
	}
	changed := f.state(t).since(before)
	f.sent++
	f.statuses[a.Status]++
	if req.misdirected {
		return errors.Join(checkMisdirected(a), checkEffect(op, req, a, changed))
	}
	errs := []error{f.document.check(op, a), checkEffect(op, req, a, changed), checkHeaders(req, a), f.checkCondition(op, req, a)}
	if a.Status < http.StatusBadRequest {
		f.used[req.header.Get("Idempotency-Key")] = true
		f.succeeded[op.name]++
		f.remember(op, a)
	}
	if errors.Join(errs...) == nil {
		errs = append(errs, f.checkPlainForm(op, req, a), f.checkRepeat(t, op, req, a), f.checkShown(op, req, a))
	}
	return errors.Join(errs...)
}

func (f *fuzzer) state(t *testing.T) state {
	t.Helper()
	s, err := readState(f.db)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// send sends a request; there is no answer to one that HTTP cannot carry, and to one that is too large
// if the server has hung up on it.
func (f *fuzzer) send(req *request) (*harness.RESTAnswer, error) {
	r, err := http.NewRequest(req.method, f.root.BaseURL+req.target, strings.NewReader(req.body))
	if err != nil {
		return nil, nil
	}
	r.Header = req.header.Clone()
	resp, err := harness.HTTPClient.Do(r)
	switch {
	case err != nil && len(req.body) > tooLarge:
		return nil, nil
	case err != nil:
		return nil, err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	return &harness.RESTAnswer{Status: resp.StatusCode, Header: resp.Header, Body: text}, err
}

// tagOf returns the ETag of what is stored at the path of a request, empty if there is none.
func (f *fuzzer) tagOf(t *testing.T, op described, req *request) string {
	t.Helper()
	if !op.readable || op.method == http.MethodPost || strings.HasPrefix(op.path, "/services") {
		return "" // a server changes services itself
	}
	a, err := f.root.REST(t.Context(), "GET "+req.plainTarget, "")
	if err != nil || a.Status != http.StatusOK {
		return ""
	}
	return a.Header.Get("ETag")
}

func checkMisdirected(a *harness.RESTAnswer) error {
	other := []int{http.StatusBadRequest, http.StatusUnauthorized, http.StatusNotFound, http.StatusRequestEntityTooLarge, http.StatusRequestHeaderFieldsTooLarge}
	if a.Status != http.StatusMethodNotAllowed && !slices.Contains(other, a.Status) {
		return fmt.Errorf("a method that the path does not have is answered with %d %s", a.Status, a.Body)
	}
	if a.Status == http.StatusMethodNotAllowed && a.Header.Get("Allow") == "" {
		return errors.New("405 comes without Allow")
	}
	return nil
}

// checkHeaders returns an error if legal headers were refused, or if what a client asked for was not done.
func checkHeaders(req *request, a *harness.RESTAnswer) error {
	if req.fair && (a.Status == http.StatusNotAcceptable || a.Status == http.StatusUnsupportedMediaType) {
		return fmt.Errorf("legal headers are refused: %d %s", a.Status, a.Body)
	}
	return nil
}

// checkCondition returns an error if a change was made or refused against the condition of the request.
func (f *fuzzer) checkCondition(op described, req *request, a *harness.RESTAnswer) error {
	if req.condition != unknown && (a.Status < 300 || a.Status == http.StatusPreconditionFailed) {
		f.conditions++
	}
	switch {
	case req.condition == fails && a.Status < 300:
		return fmt.Errorf("the condition does not hold, and %s was done: %d %s", op.name, a.Status, a.Body)
	case req.condition == holds && a.Status == http.StatusPreconditionFailed:
		return fmt.Errorf("the condition holds, and %s was refused: %s", op.name, a.Body)
	}
	return nil
}

// checkPlainForm sends an odd request again in its plain form, if it had no effect: both must be answered alike.
func (f *fuzzer) checkPlainForm(op described, req *request, a *harness.RESTAnswer) error {
	if !req.isOdd() || op.method != http.MethodGet && a.Status < http.StatusBadRequest || a.Status == http.StatusTooManyRequests {
		return nil
	}
	plain, err := f.send(req.plain())
	if err != nil || plain == nil {
		return err
	}
	f.odd++
	if plain.Status != a.Status || a.Status >= http.StatusBadRequest && codeOf(plain) != codeOf(a) {
		return fmt.Errorf("answered with %d %s; in its plain form %s %s, with %d %s", a.Status, a.Body, req.plainTarget, req.plainBody, plain.Status, plain.Body)
	}
	return nil
}

func codeOf(a *harness.RESTAnswer) string {
	var p struct{ Code string }
	_ = json.Unmarshal(a.Body, &p) // has been checked
	return p.Code
}

// checkRepeat sends a successful call again under its idempotency key.
func (f *fuzzer) checkRepeat(t *testing.T, op described, req *request, a *harness.RESTAnswer) error {
	t.Helper()
	if !op.keyed || req.header.Get("Idempotency-Key") == "" || req.header.Get("Authorization") == "" || a.Status >= 300 {
		return nil
	}
	if op.name == "DELETE /services/{name}" || op.name == "DELETE /users/{id}" && !strings.HasPrefix(req.plainTarget, "/users/usr_") {
		return nil // nothing has the name, or the legacy id, any more
	}
	before := f.state(t)
	again, err := f.send(req)
	if err != nil {
		return err
	}
	f.repeated++
	if changed := f.state(t).since(before); len(changed) > 0 {
		return fmt.Errorf("a repeat under its idempotency key changed %v", changed)
	}
	if again.Status != a.Status || again.Header.Get("Location") != a.Header.Get("Location") || !strings.HasPrefix(op.path, "/services") && string(again.Body) != string(a.Body) {
		return fmt.Errorf("answered with %d %s; a repeat under its idempotency key with %d %s", a.Status, a.Body, again.Status, again.Body)
	}
	return nil
}

// checkShown returns an error if what a change answered with is not what can be read then.
func (f *fuzzer) checkShown(op described, req *request, a *harness.RESTAnswer) error {
	at := a.Header.Get("Location")
	if a.Status == http.StatusOK && op.readable && (op.method == http.MethodPut || op.method == http.MethodPatch) {
		at, _, _ = strings.Cut(req.plainTarget, "?")
	}
	if at == "" || strings.HasPrefix(op.path, "/services") || strings.HasPrefix(op.path, "/auth") {
		return nil
	}
	shown, err := f.send(&request{method: http.MethodGet, target: at, header: http.Header{"Authorization": {"Bearer " + f.root.Token}}})
	if err != nil {
		return err
	}
	if shown.Status != http.StatusOK || a.Status == http.StatusOK && (string(shown.Body) != string(a.Body) || shown.Header.Get("ETag") != a.Header.Get("ETag")) {
		return fmt.Errorf("answered with %d %s; GET %s then shows %d %s", a.Status, a.Body, at, shown.Status, shown.Body)
	}
	return nil
}

// remember keeps the ids that an answer shows, for later requests.
func (f *fuzzer) remember(op described, a *harness.RESTAnswer) {
	var v any
	d := json.NewDecoder(strings.NewReader(string(a.Body)))
	d.UseNumber()
	if d.Decode(&v) != nil {
		return // it has no body
	}
	if token := harness.Text(v, "refresh_token"); token != "" {
		f.seen["refresh_token"] = []string{token}
	}
	if lease := harness.Text(v, "lease"); lease != "" {
		f.seen["lease"] = append(f.seen["lease"], lease)
	}
	kind := kindOf(op.path)
	for _, shown := range slices.Concat(list(v), []any{v}) {
		if id := harness.At(shown, "id"); id != nil {
			f.seen[kind] = append(f.seen[kind], fmt.Sprint(id))
		}
		if sku := harness.Text(shown, "sku"); sku != "" {
			f.seen["sku"] = append(f.seen["sku"], sku)
		}
	}
	f.seen[kind] = f.seen[kind][max(0, len(f.seen[kind])-40):]
}
