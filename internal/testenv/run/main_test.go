package main

import (
	"os"
	"strings"
	"testing"

	"github.com/backplane-dev/backplane/internal/testenv/local"
)

//nolint:paralleltest // it sets the environment
func TestRun(t *testing.T) {
	t.Setenv(local.PostgresURL, "postgres://example/db") // as if given: nothing is started
	t.Setenv(local.RedisURL, "redis://example")
	tests := []struct {
		name, script string
		code         int
		says         string
	}{
		{"passes a success on", "exit 0", 0, ""},
		{"passes the exit code on", "exit 7", 7, ""},
		{"counts a death by signal as a failure", "kill -9 $$", 1, ""},
		{"repeats what was left out", `printf 'store\tTestX\tit is missing\n' >>"$` + local.LeftOut + `"`, 0, "store: TestX"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var out strings.Builder
			code, err := run(t.Context(), []string{"/bin/sh", "-c", tt.script}, &out)
			if code != tt.code || err != nil || !strings.Contains(out.String(), tt.says) {
				t.Errorf("run = %d, %v and said %q, want %d and %q", code, err, out.String(), tt.code, tt.says)
			}
		})
	}
	t.Run("explains a command that does not exist", func(t *testing.T) {
		code, err := run(t.Context(), []string{"/nonexistent"}, os.Stdout)
		if code != 1 || err == nil {
			t.Errorf("run = %d, %v, want 1 and an error", code, err)
		}
	})
}
