package readme

import (
	"bufio"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/backplane-dev/backplane/internal/testenv"
)

// blocks returns the blocks of code of a section of README, for the server at the base URL.
func blocks(t *testing.T, section, baseURL string) (all []string) {
	t.Helper()
	text, err := os.ReadFile("../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, found := strings.Cut(string(text), "\n## "+section+"\n")
	if !found {
		t.Fatalf("README has no section %q", section)
	}
	rest, _, _ = strings.Cut(rest, "\n## ")
	for i, part := range strings.Split(rest, "\n```\n") {
		if i%2 == 1 {
			all = append(all, strings.ReplaceAll(part, "http://127.0.0.1:8080", baseURL))
		}
	}
	return all
}

// terminal returns a shell that runs the blocks one after the other.
func terminal(t *testing.T, blocks ...string) *exec.Cmd {
	t.Helper()
	return exec.CommandContext(t.Context(), "bash", "-euo", "pipefail", "-c", strings.Join(blocks, "\n"))
}

func TestREADME_leads_to_a_live_order_in_two_terminals(t *testing.T) {
	t.Parallel()
	for _, tool := range []string{"bash", "curl"} {
		if _, err := exec.LookPath(tool); err != nil {
			testenv.LeaveOut(t, tool, err)
		}
	}
	p := testenv.ServerWith(t, []string{"--demo"}) // as make run does
	query, order, live := blocks(t, "A first query", p.BaseURL), blocks(t, "A first order", p.BaseURL), blocks(t, "Live", p.BaseURL)
	if len(query) != 1 || len(order) != 3 || len(live) != 2 {
		t.Fatalf("the sections have %d, %d and %d blocks, want 1, 3 and 2", len(query), len(order), len(live))
	}

	first := terminal(t, append(append(query, order...), live[0])...)
	out, err := first.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := first.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = first.Process.Kill() // it follows for ever
		_ = first.Wait()
	})
	lines := bufio.NewReader(out)
	// await reads the first terminal up to a line with the text.
	await := func(text string) string {
		var seen strings.Builder
		for {
			line, err := lines.ReadString('\n')
			seen.WriteString(line)
			if err != nil {
				t.Errorf("the first terminal ended without %q: %v\n%s", text, err, seen.String())
				return ""
			}
			if strings.Contains(line, text) {
				return seen.String()
			}
		}
	}
	if shown := await(`"totalCount"`); strings.Contains(shown, `"stock":0`) {
		t.Errorf("the first query shows what is sold out: %s", shown)
	}
	await(`"status":"PENDING"`)
	await(":") // the stream has begun, but may not follow the log yet: there is another order until it does

	event := make(chan string, 1)
	go func() { event <- await("ORDER_PLACED") }()
	var answers strings.Builder
	for {
		answer, err := terminal(t, order[1], live[1]).Output()
		if err != nil || !strings.Contains(string(answer), `"status":"PENDING"`) {
			t.Fatalf("the second terminal: %s, %v", answer, err)
		}
		answers.Write(answer)
		select {
		case shown := <-event:
			_, number, _ := strings.Cut(shown, `"number":"`)
			number, _, _ = strings.Cut(number, `"`)
			if number == "" || !strings.Contains(answers.String(), number) || !strings.Contains(shown, "id:") {
				t.Errorf("the first terminal shows %s, want the event of the order with its cursor; the second one shows %s", shown, answers.String())
			}
			return
		case <-time.After(time.Second):
		}
	}
}
