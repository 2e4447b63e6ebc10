package client_test

import (
	"os/exec"
	"strings"
	"testing"
)

// TestImports_are_of_the_standard_library proves what a service that imports the
// package takes in with it: nothing of the server but the policies, and nothing of others.
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
