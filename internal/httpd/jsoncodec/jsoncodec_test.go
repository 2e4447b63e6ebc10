package jsoncodec_test

import (
	"bytes"
	"testing"

	"github.com/vektah/gqlparser/v2/gqlerror"

	"github.com/backplane-dev/backplane/internal/httpd/jsoncodec"
)

func TestBearer(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		value, token string
		ok           bool
	}{
		{"Bearer a", "a", true}, {"bearer  a ", "a", true}, {"Bearer", "", true}, {"Basic a", "", false}, {"a", "", false}, {"", "", false},
	} {
		if token, ok := jsoncodec.BearerToken(tt.value); token != tt.token || ok != tt.ok {
			t.Errorf("Bearer(%q) = %q, %v, want %q, %v", tt.value, token, ok, tt.token, tt.ok)
		}
	}
}

func TestEncode(t *testing.T) {
	t.Parallel()
	for want, v := range map[string]any{
		`"<&>"`:         "<&>",
		`{"data":null}`: jsoncodec.Response{},
		`{"errors":[{"message":"No."}],"extensions":{"cursor":"c"}}`: jsoncodec.Response{
			Errors: gqlerror.List{{Message: "No."}}, Data: []byte(`{"a":null}`), Extensions: map[string]any{"cursor": "c"}, OmitData: true,
		},
		`[{"data":{"a":1}},{"errors":[{"message":"No."}],"data":null,"extensions":{"cursor":"c"}}]`: []any{
			jsoncodec.Response{Data: []byte(`{"a":1}`)},
			jsoncodec.Response{Errors: gqlerror.List{{Message: "No."}}, Extensions: map[string]any{"cursor": "c"}},
		},
	} {
		var out bytes.Buffer
		if err := jsoncodec.Encode(&out, v); err != nil || out.String() != want {
			t.Errorf("Encode(%v) = %s, %v, want %s", v, out.Bytes(), err, want)
		}
	}
}

func TestDecode_reads_text_as_it_was_sent(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"\uFEFF\"a\"": "a", `"\ud83d\ude00"`: "\U0001F600", `"\ud83d"`: "\x00", `"a\ude00b"`: "a\x00b", `"\\ud83d"`: `\ud83d`, `"\\\ud83d"`: "\\\x00",
		`"\ud83d\u0041"`: "\x00A", `"\ud83d\ud83d\ude00"`: "\x00\U0001F600", `"\ufffd"`: "\uFFFD",
	} {
		if got, err := jsoncodec.Decode([]byte(text)); err != nil || got != want {
			t.Errorf("Decode(%s) = %q, %v, want %q", text, got, err, want)
		}
	}
	for _, text := range []string{"\uFEFF", "\uFEFF\uFEFF1", "1\uFEFF", "\"\\"} {
		if got, err := jsoncodec.Decode([]byte(text)); err == nil {
			t.Errorf("Decode(%q) = %v, want an error", text, got)
		}
	}
}
