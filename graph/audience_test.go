package graph_test

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/backplane-dev/backplane/internal/auth"
	"github.com/backplane-dev/backplane/internal/event"
)

// TestAudience_is_the_golden_file shows every change of who may see which events in review:
// each type, for each role with a session, with an API key of each single scope and with one
// of no scope. Callers that see no event of a type are left out.
func TestAudience_is_the_golden_file(t *testing.T) {
	t.Parallel()
	var got strings.Builder
	for _, typ := range slices.Sorted(slices.Values(event.Types())) {
		fmt.Fprintf(&got, "%s, public while active: %v\n", typ, event.IsPublic(typ, json.RawMessage(`{"active":true}`)))
		if seen := visibility(typ, nil); seen != "" {
			fmt.Fprintf(&got, "  anonymous: %s\n", seen)
		}
		for _, role := range auth.Roles() {
			credentials := map[string]auth.Credential{"session": auth.SessionCredential("ses_1"), "key": auth.APIKeyCredential("key_1")}
			for _, scope := range append(auth.Scopes(), auth.ServiceScope("echo")) {
				credentials["key for "+string(scope)] = auth.APIKeyCredential("key_1", scope)
			}
			for _, name := range slices.Sorted(maps.Keys(credentials)) {
				caller := &auth.Principal{UserID: "usr_me", Roles: []auth.Role{role}, Credential: credentials[name]}
				if seen := visibility(typ, caller); seen != "" {
					fmt.Fprintf(&got, "  %s by %s: %s\n", role, name, seen)
				}
			}
		}
	}
	checkGolden(t, "testdata/audience.golden", got.String(), "who may see which events has changed")
}

// visibility names the events of the type that the caller sees: those that do not concern it
// and are not public, its own, and public ones.
func visibility(typ event.Type, caller *auth.Principal) string {
	a := event.AudienceOf(caller)
	var seen []string
	for name, e := range map[string]event.Event{
		"others": {Type: typ}, "own": {Type: typ, Related: []string{"usr_me"}}, "public": {Type: typ, Public: true},
	} {
		if a.Sees(&e) {
			seen = append(seen, name)
		}
	}
	slices.Sort(seen)
	return strings.Join(seen, ", ")
}
