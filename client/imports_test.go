package client_test

import (
	"os/exec"
	"strings"
	"testing"
)

// TestImports_are_of_the_standard_library lists the packages that a service compiles with the client:
// the policies, and no package of the server or of a third party.
func TestImports_are_of_the_standard_library(t *testing.T) {
	t.Parallel()
	out, err := exec.Command("go", "list", "-deps", "-f", "{{if not .Standard}}{{.ImportPath}}{{end}}", ".").Output()
	if err != nil {
		t.Fatalf("go list: %v", err)
	}
	want := "github.com/backplane-dev/backplane/client/policy github.com/backplane-dev/backplane/client"
	if got := strings.Join(strings.Fields(string(out)), " "); got != want {
		t.Errorf("beside the standard library it needs %s, want %s", got, want)
	}
}
