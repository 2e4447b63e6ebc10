package executor_test

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/backplane-dev/backplane/internal/executor"
)

func TestPack_keeps_what_a_request_asks_for_in_few_bytes(t *testing.T) {
	t.Parallel()
	req := executor.Request{
		Query: "subscription($n: Long) { " + strings.Repeat("events { cursor type subjectId data } ", 100) + "}", OperationName: "a",
		Variables: map[string]any{"n": json.Number("9007199254740993"), "list": []any{"x", nil, true}},
	}
	b, err := executor.Pack(req)
	if err != nil {
		t.Fatal(err)
	}
	got, err := executor.Unpack(b)
	if err != nil || !got.Same(req) {
		t.Errorf("Unpack = %v, differs by:\n%s", err, cmp.Diff(req, got))
	}
	if len(b) > len(req.Query)/4 {
		t.Errorf("%d bytes are packed into %d", len(req.Query), len(b))
	}
	for name, other := range map[string]executor.Request{
		"document":  {Query: req.Query + " ", OperationName: "a", Variables: req.Variables},
		"name":      {Query: req.Query, Variables: req.Variables},
		"variables": {Query: req.Query, OperationName: "a", Variables: map[string]any{"n": json.Number("9007199254740992"), "list": []any{"x", nil, true}}},
		"extension": {Query: req.Query, OperationName: "a", Variables: req.Variables, Extensions: map[string]any{"a": nil}},
	} {
		if got.Same(other) {
			t.Errorf("a request of another %s is the same", name)
		}
	}
	if _, err := executor.Unpack(b[:len(b)/2]); err == nil {
		t.Error("Unpack takes half a request")
	}
}
