package client_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// checkout is the root of this repository.
const checkout = "../.."

// TestClient_serves_another_module builds a program of another module with the commands that
// docs/registry.md gives, without the network, and runs it against a server.
func TestClient_serves_another_module(t *testing.T) {
	t.Parallel()
	registry := startRegistry(t)
	dir := t.TempDir()
	program, err := os.ReadFile("testdata/outside/main.go")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "main.go"), program, 0o600); err != nil {
		t.Fatal(err)
	}
	runIn(t, dir, "go", "mod", "init", "example.com/outside")
	for _, command := range documentedCommands(t) {
		runIn(t, dir, command...)
	}
	runIn(t, dir, "go", "build", "-o", "outside", ".")
	got := runIn(t, dir, filepath.Join(dir, "outside"), registry.BaseURL, registry.key("service:greeter"))
	if want := "PASSING hello, outside\n"; got != want {
		t.Errorf("the program printed %q, want %q", got, want)
	}
}

// documentedCommands returns the commands of docs/registry.md that make a checkout's client a
// dependency, with the path of this checkout.
func documentedCommands(t *testing.T) (commands [][]string) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(checkout, "docs", "registry.md"))
	if err != nil {
		t.Fatal(err)
	}
	root, err := filepath.Abs(checkout)
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range regexp.MustCompile(`(?m)^go mod .+$`).FindAllString(string(text), -1) {
		commands = append(commands, strings.Fields(strings.ReplaceAll(line, "/path/to/backplane", root)))
	}
	if len(commands) == 0 {
		t.Fatal("docs/registry.md gives no commands that begin with go mod")
	}
	return commands
}

// runIn runs a command in the directory, without a module proxy, and returns what it prints.
func runIn(t *testing.T, dir string, command ...string) string {
	t.Helper()
	cmd := exec.Command(command[0], command[1:]...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "GOFLAGS=-mod=mod", "GOPROXY=off", "GOWORK=off")
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%s: %v\n%s", strings.Join(command, " "), err, stderr.String())
	}
	return string(out)
}
