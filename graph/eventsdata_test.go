package graph_test

import (
	"bytes"
	"encoding/json"
	"reflect"
	"testing"

	"github.com/backplane-dev/backplane/internal/auth"
	"github.com/backplane-dev/backplane/internal/demo"
	"github.com/backplane-dev/backplane/internal/event"
	"github.com/backplane-dev/backplane/internal/page"
	"github.com/backplane-dev/backplane/internal/testenv"
)

// TestEvents_reference_is_the_golden_file shows every change of the data of events in review: a field may
// come, and none may go or change.
func TestEvents_reference_is_the_golden_file(t *testing.T) {
	t.Parallel()
	for _, typ := range event.Types() {
		if event.DataOf(typ) == nil {
			t.Errorf("%s declares no data", typ)
		}
	}
	checkGolden(t, "../docs/events.md", event.Reference(), "the data of events have changed")
}

// TestEvents_have_the_data_that_they_declare reads what was stored into the structs of the declarations.
func TestEvents_have_the_data_that_they_declare(t *testing.T) {
	t.Parallel()
	s := newServer(t, testenv.SQLite(t))
	s.fill(t, demo.Size{Users: 3, Orders: 10, Lines: 2})
	s.ask(t, staff, `mutation { registerService(input: {name: "echo", healthCheck: {path: "/"}}) { service { id } } }`, nil)
	s.ask(t, staff, `mutation { registerInstance(input: {service: "echo", instanceId: "i1", url: "http://192.0.2.1"}) { instance { id } } }`, nil)
	product := s.ask(t, staff, `{ products(first: 1) { nodes { id } } }`, nil)["products"].(map[string]any)["nodes"].([]any)[0].(map[string]any)["id"]
	s.ask(t, staff, `mutation($id: ID!) { adjustStock(input: {productId: $id, by: 1}) { userErrors { code } } }`, map[string]any{"id": product})
	ctx := auth.With(t.Context(), &auth.Principal{Roles: []auth.Role{auth.Admin}, Credential: auth.SystemCredential()})
	newest := page.MaxSize
	list, err := s.hub.Log().List(ctx, event.Filter{}, page.Args{Last: &newest})
	if err != nil {
		t.Fatal(err)
	}
	seen := map[event.Type]bool{}
	for _, e := range list.Items {
		seen[e.Type] = true
		d := json.NewDecoder(bytes.NewReader(e.Data))
		d.DisallowUnknownFields()
		if err := d.Decode(reflect.New(reflect.TypeOf(event.DataOf(e.Type))).Interface()); err != nil {
			t.Errorf("the data of %s are %s: %v", e.Type, e.Data, err)
		}
	}
	if len(seen) < 6 {
		t.Errorf("only events of the types %v were read", seen)
	}
}
