package conformance_test

import (
	"bufio"
	"bytes"
	"io"
	"os/exec"
	"strings"
	"testing"

	"github.com/backplane-dev/backplane/internal/testenv"
)

// TestServer_does_what_clients_document_for_their_users runs the code of the clients' documentation: refresh,
// retry and resume, with access tokens that live for two seconds and a server that is killed.
func TestServer_does_what_clients_document_for_their_users(t *testing.T) {
	t.Parallel()
	for _, script := range [][]string{{"clients/urql.mjs"}, {"clients/apollo.mjs"}, {"clients/graphql-ws.mjs"}, {"clients/relay.mjs", schema}} {
		t.Run(script[0], func(t *testing.T) {
			t.Parallel()
			needPackages(t)
			server := testenv.Server(t, "BACKPLANE_RATE_LIMIT=off", "BACKPLANE_ACCESS_TOKEN_TIME=2s")
			command := append([]string{script[0], server.BaseURL + "/graphql"}, script[1:]...)
			nodeWithServer(t, server, ".", command...)
		})
	}
}

// nodeWithServer is node for a script that has the server killed and started, by a line for each.
func nodeWithServer(t *testing.T, server *testenv.Process, dir string, command ...string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), testenv.Node(t), command...)
	cmd.Dir = dir
	var errs bytes.Buffer
	cmd.Stderr = &errs
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	replies, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	for lines := bufio.NewScanner(out); lines.Scan(); {
		switch line := strings.TrimSpace(lines.Text()); line {
		case "kill":
			server.Kill()
		case "start":
			server.Start()
		default:
			t.Log(line)
			continue
		}
		_, _ = io.WriteString(replies, "done\n") // a script that has ended says how below
	}
	if err := cmd.Wait(); err != nil {
		t.Errorf("%s: %v\n%s", command[0], err, errs.Bytes())
	}
}
