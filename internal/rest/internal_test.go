package rest

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	_ "github.com/backplane-dev/backplane/graph" // declares all codes
	"github.com/backplane-dev/backplane/internal/fault"
	"github.com/backplane-dev/backplane/internal/problem"
)

func TestView_hides_and_renames(t *testing.T) {
	t.Parallel()
	users := &view{sub: map[string]*view{}}
	order := &view{sub: map[string]*view{"user": users, "items": {plain: true}}}
	for data, want := range map[string]string{
		`{"_legacyId":"5","_version":2,"id":"ord_1","note":"a \"}, {_x\" b"}`:    `{"id":5,"note":"a \"}, {_x\" b"}`,
		`{"_legacyId":"005","id":"ord_1"}`:                                       `{"id":"005"}`,
		`{"_legacyId":null,"id":"ord_1"}`:                                        `{"id":"ord_1"}`,
		`{"_legacyId":"c-7","id":"ord_1","user":{"_legacyId":"0","id":"usr_1"}}`: `{"id":"c-7","user":{"id":0}}`,
		`[{"_version":1,"id":"a"},{"_version":2,"id":"b"}]`:                      `[{"id":"a"},{"id":"b"}]`,
		`[]`:                                  `[]`,
		`null`:                                `null`,
		`{"user":null,"items":[{"_x":1}]}`:    `{"user":null,"items":[{"_x":1}]}`,
		`{"data":{"_kept":[1,{"_too":"]"}]}}`: `{"data":{"_kept":[1,{"_too":"]"}]}}`,
	} {
		if got, rest := order.appendValue(nil, []byte(data)); string(got) != want || len(rest) > 0 {
			t.Errorf("%s is shown as %s, want %s (left over: %q)", data, got, want, rest)
		}
	}
}

// FuzzView holds that whatever JSON the executor writes is shown as valid JSON.
func FuzzView(f *testing.F) {
	for _, s := range []string{`{"_legacyId":"5","id":"a","user":{"_version":1}}`, `[{"a":"\\\""},[],{}]`, `"x"`, `-1e5`, `{"a":{"b":[null,true]}}`} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		var v any
		if json.Unmarshal(text, &v) != nil {
			return
		}
		data, err := json.Marshal(v)
		if err != nil || strings.Contains(string(data), `\`) {
			return // names of GraphQL have no escapes
		}
		shown, rest := (&view{sub: map[string]*view{"user": {}}}).appendValue(nil, data)
		if !json.Valid(shown) || len(rest) > 0 {
			t.Errorf("%s is shown as %s, and %q is left", data, shown, rest)
		}
	})
}

func TestParseIfMatch_reads_versions(t *testing.T) {
	t.Parallel()
	for value, want := range map[string][]int{
		`"17-3vO1"`: {17}, `"17"`: {17}, "17": {17}, `W/"17-x"`: {17}, ` "0-x" `: {0}, `"1", "2"`: {1, 2}, `"x" , W/"2-a",,`: {2},
	} {
		if got, _, err := parseIfMatch(value); !slices.Equal(got, want) || err != nil {
			t.Errorf("parseIfMatch(%q) = %d, %v, want %d", value, got, err, want)
		}
	}
	if _, whatever, err := parseIfMatch("*"); !whatever || err != nil {
		t.Errorf("parseIfMatch(*) = %v, %v, want any version", whatever, err)
	}
	for value, want := range map[string]int{`"x"`: http.StatusPreconditionFailed, `"99999999999-x"`: http.StatusPreconditionFailed, "x": 400, `"1" "2"`: 400, `"1", x`: 400, `*, "1"`: 400, ",": 400, "17-x": 400, "": 400} {
		_, _, err := parseIfMatch(value)
		got := http.StatusBadRequest
		if p, ok := errors.AsType[*problem.Error](err); ok {
			got = p.Status
		}
		if err == nil || got != want {
			t.Errorf("parseIfMatch(%q) = %v, want an error with status %d", value, err, want)
		}
	}
}

func FuzzParseIfMatch(f *testing.F) {
	for _, s := range []string{`"17-x"`, "*", `W/"1"`, "1", `"`, `W/`, `"1","2"`} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, value string) {
		n, _, err := parseIfMatch(value)
		if err != nil && fault.From(err).Kind() == fault.KindInternal || slices.ContainsFunc(n, func(v int) bool { return v < 0 }) {
			t.Errorf("parseIfMatch(%q) = %d, %v", value, n, err)
		}
	})
}

func TestUserErrors_have_the_status_of_the_same_error_outside_a_payload(t *testing.T) {
	t.Parallel()
	rt := &route{answer: resultShape{path: []string{"updateUser"}}}
	for _, m := range fault.Meanings() {
		outside := rt.statusOf(&boundRequest{}, fault.New(m.Code, "No."))
		err := rt.userErrors(&boundRequest{}, fmt.Appendf(nil, `{%q:[{"code":%q,"message":"No.","path":[]}]}`, errorsKey, m.Code))
		if inside := problem.StatusOf(err); inside != outside {
			t.Errorf("%s has the status %d as a userError, %d else", m.Code, inside, outside)
		}
	}
}

func TestMergePatch_follows_RFC_7396(t *testing.T) {
	t.Parallel()
	for _, tt := range [][3]string{ // target, patch, result: the examples of its appendix A that are objects
		{`{"a":"b"}`, `{"a":"c"}`, `{"a":"c"}`},
		{`{"a":"b"}`, `{"b":"c"}`, `{"a":"b","b":"c"}`},
		{`{"a":"b"}`, `{"a":null}`, `{}`},
		{`{"a":"b","b":"c"}`, `{"a":null}`, `{"b":"c"}`},
		{`{"a":["b"]}`, `{"a":"c"}`, `{"a":"c"}`},
		{`{"a":{"b":"c"}}`, `{"a":{"b":"d","c":null}}`, `{"a":{"b":"d"}}`},
		{`{"a":[{"b":"c"}]}`, `{"a":[1]}`, `{"a":[1]}`},
		{`["a","b"]`, `["c","d"]`, `["c","d"]`},
		{`{"a":"foo"}`, `null`, `null`},
		{`{"e":null}`, `{"a":1}`, `{"e":null,"a":1}`},
		{`[1,2]`, `{"a":"b","c":null}`, `{"a":"b"}`},
		{`{}`, `{"a":{"bb":{"ccc":null}}}`, `{"a":{"bb":{}}}`},
	} {
		var target, patch, want any
		for i, into := range []*any{&target, &patch, &want} {
			if err := json.Unmarshal([]byte(tt[i]), into); err != nil {
				t.Fatal(err)
			}
		}
		if diff := cmp.Diff(want, mergePatch(target, patch)); diff != "" {
			t.Errorf("%s with %s differs (-want +got):\n%s", tt[0], tt[1], diff)
		}
	}
}
