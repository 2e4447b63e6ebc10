package rest

import (
	"bytes"
	"flag"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/tools/txtar"

	"github.com/backplane-dev/backplane/e2e/harness"
	"github.com/backplane-dev/backplane/internal/testenv"
)

var update = flag.Bool("update", false, "rewrite golden files")

// TestREST_answers_old_clients_byte_for_byte plays recorded calls against real
// servers. Each file of testdata/rest is a conversation: requests and the answers
// to them, in turn. What differs from run to run, such as ids, has stand-ins.
func TestREST_answers_old_clients_byte_for_byte(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob("testdata/rest/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatalf("found %d recorded conversations: %v", len(files), err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txtar"), func(t *testing.T) {
			t.Parallel()
			harness.OnEachDatabase(t, func(t *testing.T, database string) { converse(t, file, database) })
		})
	}
}

// converse plays one file; with -update it writes what was answered on SQLite.
func converse(t *testing.T, file, database string) {
	t.Helper()
	recorded, err := txtar.ParseFile(file)
	if err != nil {
		t.Fatal(err)
	}
	c := &conversation{p: harness.StartServer(t, database), tokens: map[string]string{}}
	c.tokens["admin"] = harness.SignInAdmin(t, c.p).Token
	got := &txtar.Archive{Comment: recorded.Comment}
	for _, f := range recorded.Files {
		if f.Name == "answer" {
			continue
		}
		got.Files = append(got.Files, f, txtar.File{Name: "answer", Data: c.ask(t, f.Name, string(f.Data))})
	}
	if *update {
		if strings.HasPrefix(database, "sqlite:") {
			if err := os.WriteFile(file, txtar.Format(got), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		return
	}
	if diff := cmp.Diff(string(txtar.Format(recorded)), string(txtar.Format(got))); diff != "" {
		t.Errorf("the answers differ from those recorded (-recorded +got):\n%s", diff)
	}
}

// conversation is a client that remembers what it was told.
type conversation struct {
	p        *testenv.Process
	tokens   map[string]string // by user
	stand    []string          // the real values, in the order in which they came
	standIns []string          // their names
}

// ask sends a request, whose name is "METHOD /path" and "as USER", and returns
// the answer as it is recorded.
func (c *conversation) ask(t *testing.T, name, text string) []byte {
	t.Helper()
	line, user, _ := strings.Cut(c.real(name), " as ")
	method, target, _ := strings.Cut(line, " ")
	head, body, _ := strings.Cut("\n"+c.real(text), "\n\n")
	req, err := http.NewRequestWithContext(t.Context(), method, c.p.BaseURL+target, strings.NewReader(strings.TrimSuffix(body, "\n")))
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("User-Agent", "old client/1.0")
	for h := range strings.Lines(strings.TrimSpace(head)) {
		field, value, _ := strings.Cut(h, ":")
		req.Header.Add(field, strings.TrimSpace(value))
	}
	if user != "" {
		req.Header.Set("Authorization", "Bearer "+c.token(t, user))
	}
	resp, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	answered, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return []byte(c.recordable(written(resp, answered)))
}

// token returns the access token of a user that signed up with the password of tests.
func (c *conversation) token(t *testing.T, user string) string {
	t.Helper()
	if c.tokens[user] == "" {
		c.tokens[user] = harness.SignIn(t, c.p, user, "a password of mine").Token
	}
	return c.tokens[user]
}

// promised are the headers that clients may rely on.
var promised = []string{
	"Accept-Patch", "Allow", "Cache-Control", "Content-Encoding", "Content-Type", "Deprecation", "Etag", "Link", "Location",
	"Preference-Applied", "Retry-After", "Sunset", "Vary", "Www-Authenticate",
}

func written(resp *http.Response, body []byte) string {
	var out bytes.Buffer
	fmt.Fprintln(&out, resp.Status)
	for _, name := range promised {
		for _, v := range resp.Header.Values(name) {
			fmt.Fprintf(&out, "%s: %s\n", name, v)
		}
	}
	if len(body) > 0 {
		fmt.Fprintf(&out, "\n%s", body)
	}
	return out.String()
}

// varying matches what differs from run to run, by what its stand-ins are called. Cursors of pages
// begin with the name of their order in base64.
var varying = regexp.MustCompile(`(?P<id>\b(?:usr|prd|ord|evt|ses|key)_[0-9a-z]{26}(?:\.\d+\.[\w-]+)?)|(?P<order>\b[A-Z0-9]{5}-[A-Z0-9]{5}\b)|` +
	`(?P<time>\d{4}-\d\d-\d\dT[\d:.]+Z)|(?P<digest>-[\w-]{16}")|(?P<log>\bc[\w-]{22}\b)|(?P<page>\b(?:Q1JF|TkFN|SU5T|UExB|UFJJ|VE9U|VVNF)[\w-]{12,})|(?P<token>\beyJ[\w.-]+)|` +
	`(?P<lease>"[\w-]{54}")`)

// recordable puts stand-ins in the places of what varies; equal values have equal
// ones.
func (c *conversation) recordable(text string) string {
	return varying.ReplaceAllStringFunc(text, func(value string) string {
		if i := slices.Index(c.stand, value); i >= 0 {
			return c.standIns[i]
		}
		match := varying.FindStringSubmatch(value)
		kind := ""
		for i, name := range varying.SubexpNames() {
			if i > 0 && match[i] != "" {
				kind = name
			}
		}
		if kind == "time" || kind == "digest" {
			return map[string]string{"time": "TIME", "digest": `-DIGEST"`}[kind]
		}
		name := fmt.Sprintf("<%s %d>", kind, len(c.stand)+1)
		c.stand, c.standIns = append(c.stand, value), append(c.standIns, name)
		return name
	})
}

// real puts the values of this run in the places of their stand-ins.
func (c *conversation) real(text string) string {
	for i, name := range c.standIns {
		text = strings.ReplaceAll(text, name, c.stand[i])
	}
	return text
}
