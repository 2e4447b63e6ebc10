package attack

import (
	"strings"
	"testing"

	"github.com/backplane-dev/backplane/e2e/harness"
	"github.com/backplane-dev/backplane/internal/testenv"
)

// TestSigning_key_is_revoked_on_all_nodes_at_once revokes the key that signs, as an operator does
// when it may have leaked.
func TestSigning_key_is_revoked_on_all_nodes_at_once(t *testing.T) {
	t.Parallel()
	harness.OnEachDatabase(t, func(t *testing.T, database string) {
		servers := []*testenv.Process{harness.StartServer(t, database)}
		if !strings.HasPrefix(database, "sqlite:") { // which one server at a time serves
			servers = append(servers, testenv.Server(t, harness.Settings(database)...))
		}
		revokeSigningKey(t, database, servers)
	})
}

func revokeSigningKey(t *testing.T, database string, servers []*testenv.Process) {
	t.Helper()
	ada := harness.SignUp(t, servers[0], "ada")
	var nodes []harness.Caller
	for _, s := range servers {
		nodes = append(nodes, harness.Caller{BaseURL: s.BaseURL, Token: ada.Token})
	}
	for _, n := range nodes {
		n.Do(t, `{ viewer { user { name } } }`, nil)
	}
	lines := strings.Split(strings.TrimSpace(harness.RunCommand(t, database, "keys")), "\n")
	id := strings.Fields(lines[len(lines)-1])[0]
	if out := harness.RunCommand(t, database, "keys", "revoke", id); !strings.Contains(out, "is revoked") {
		t.Errorf("keys revoke printed %q", out)
	}
	for i, n := range nodes {
		harness.Eventually(t, "the token is refused", func() bool {
			a, err := n.Send(t.Context(), `{ viewer { user { name } } }`, nil)
			return err == nil && a.Status == 401
		})
		again := harness.SignIn(t, servers[i], "ada", "a password of mine")
		for _, other := range nodes {
			again.BaseURL = other.BaseURL
			again.Do(t, `{ viewer { user { name } } }`, nil) // the key that replaces it is known everywhere
		}
	}
	if out, err := runIn(t, t.TempDir(), harness.Settings(database), "keys", "revoke", id); err == nil || !strings.Contains(out, "there is no signing key of this id") {
		t.Errorf("keys revoke of a revoked key: %v %q", err, out)
	}
}
