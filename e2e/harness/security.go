package harness

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/backplane-dev/backplane/internal/testenv"
)

// SecurityEvent is a line of `backplane security events`.
type SecurityEvent struct {
	ID        string `json:"id"`
	Type      string `json:"type"`
	Count     int    `json:"count"`
	User      string `json:"userId"`
	Actor     string `json:"actor"`
	Session   string `json:"sessionId"`
	Key       string `json:"apiKeyId"`
	Address   string `json:"address"`
	UserAgent string `json:"userAgent"`
	RequestID string `json:"requestId"`
	Detail    string `json:"detail"`
}

// SecurityEvents returns the security events of the server, as an operator exports them.
func SecurityEvents(t *testing.T, p *testenv.Process, args ...string) (events []SecurityEvent) {
	t.Helper()
	text, err := p.Run(append([]string{"security", "events"}, args...)...)
	if err != nil {
		t.Fatalf("security events: %v\n%s", err, text)
	}
	for line := range strings.Lines(text) {
		var e SecurityEvent
		if err := json.Unmarshal([]byte(line), &e); err != nil || e.ID == "" {
			t.Fatalf("security events wrote %q, %v", line, err)
		}
		events = append(events, e)
	}
	return events
}
