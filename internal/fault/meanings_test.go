package fault

import (
	"maps"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestMeanings_hold_each_declared_code_once(t *testing.T) {
	t.Parallel()
	var listed []Code
	for _, m := range Meanings() {
		listed = append(listed, m.Code)
		if m.Kind != m.Code.Kind() || !m.Code.Known() || !strings.HasSuffix(m.Sentence, ".") {
			t.Errorf("%s has the kind %d and the meaning %+v", m.Code, m.Code.Kind(), m)
		}
	}
	if diff := cmp.Diff(slices.Sorted(maps.Values(declared(t))), slices.Sorted(slices.Values(listed))); diff != "" {
		t.Errorf("codes (-declared +with a meaning):\n%s", diff)
	}
}

func TestMeanings_use_every_kind(t *testing.T) {
	t.Parallel()
	used := map[Kind]bool{}
	for _, m := range Meanings() {
		used[m.Kind] = true
	}
	if diff := cmp.Diff(Kinds(), slices.Sorted(maps.Keys(used))); diff != "" {
		t.Errorf("kinds (-declared +used):\n%s", diff)
	}
}

func TestKind_of_an_unknown_code_is_internal(t *testing.T) {
	t.Parallel()
	if c := Code("NO_SUCH_CODE"); c.Known() || c.Kind() != KindInternal {
		t.Errorf("the unknown code is known: %v, and has the kind %d; want that it is unknown and internal", c.Known(), c.Kind())
	}
}

func TestCodes_give_their_constants_their_names(t *testing.T) {
	t.Parallel()
	for name, code := range declared(t) {
		if want := camelCase(code); name != want {
			t.Errorf("the constant of %s is %s, want %s", code, name, want)
		}
	}
}

// camelCase writes SKU_TAKEN as SKUTaken.
func camelCase(c Code) string {
	initialisms := map[string]string{"API": "API", "GRAPHQL": "GraphQL", "ID": "ID", "SKU": "SKU"}
	var name strings.Builder
	for word := range strings.SplitSeq(string(c), "_") {
		if s, ok := initialisms[word]; ok {
			name.WriteString(s)
			continue
		}
		name.WriteString(word[:1] + strings.ToLower(word[1:]))
	}
	return name.String()
}

// declared returns the codes by the names of their constants. It reads the source,
// since Go cannot list constants.
func declared(t *testing.T) map[string]Code {
	t.Helper()
	text, err := os.ReadFile("codes.go")
	if err != nil {
		t.Fatal(err)
	}
	codes := map[string]Code{}
	for _, m := range regexp.MustCompile(`(?m)^\s+(\w+)\s+Code\s+= "(\w+)"`).FindAllStringSubmatch(string(text), -1) {
		codes[m[1]] = Code(m[2])
	}
	return codes
}
