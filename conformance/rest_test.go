package conformance_test

import (
	"os/exec"
	"strings"
	"testing"

	"github.com/backplane-dev/backplane/internal/testenv"
)

func TestOpenAPI_passes_the_default_rules_of_public_linters(t *testing.T) {
	t.Parallel()
	for _, file := range []string{"../internal/rest/testdata/openapi.golden.json", "../docs/payment-provider.openapi.yaml"} {
		node(t, "openapi.mjs", file)
	}
}

func TestOpenAPI_serves_a_generated_client(t *testing.T) {
	t.Parallel()
	needPackages(t)
	server := testenv.Server(t, "BACKPLANE_ADMIN_USERNAME=root", "BACKPLANE_ADMIN_PASSWORD=correct horse battery staple")
	out, err := server.Run("apikey", "--user", "root", "--name", "conformance", "--scopes", "users:read,users:write,products:write,orders:read,orders:write,legacy:write,users:admin")
	if err != nil {
		t.Fatalf("make an API key: %v: %s", err, out)
	}
	key, _, _ := strings.Cut(out, "\n")
	node(t, "client.mjs", server.BaseURL, key)
}

// TestDocs_can_try_every_operation presses each button of the page of the legacy REST routes.
func TestDocs_can_try_every_operation(t *testing.T) {
	t.Parallel()
	needPackages(t)
	browser := testenv.Browser(t)
	server := testenv.ServerWith(t, []string{"--demo"}, "BACKPLANE_RATE_LIMIT=off")
	const password = "correct horse battery staple"
	cmd := exec.CommandContext(t.Context(), testenv.Binary(t), "users", "set-password", "ada")
	cmd.Dir, cmd.Stdin = server.Dir, strings.NewReader(password+"\n")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("set the password of the ADMIN: %v: %s", err, out)
	}
	node(t, "docs.mjs", server.BaseURL, browser, "ada", password)
}
