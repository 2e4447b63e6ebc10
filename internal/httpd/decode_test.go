package httpd

import (
	"encoding/json"
	"testing"

	"github.com/backplane-dev/backplane/internal/fault"
)

func FuzzDecodeBody(f *testing.F) {
	for _, s := range []string{`{}`, `{"query":"{a}","variables":{"a":[1,2.5,"x",null,true]}}`, `[{"query":"{a}"}]`, `{"a":1,"a":2}`, `"x"`, `[`, "\xff"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		in, err := decodeBody(text, 3)
		if err != nil {
			if e := fault.From(err); e.Kind() != fault.KindInvalid || e.Code != fault.BadRequest {
				t.Errorf("decodeBody = %v, want %s", err, fault.BadRequest)
			}
			return
		}
		if !json.Valid(text) {
			t.Errorf("decodeBody took what is no JSON: %q", text)
		}
		if len(in.requests) == 0 || len(in.requests) > 3 || !in.batch && len(in.requests) != 1 {
			t.Errorf("decodeBody gave %d requests", len(in.requests))
		}
	})
}
