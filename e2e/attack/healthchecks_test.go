package attack

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/backplane-dev/backplane/e2e/harness"
)

// TestServiceKey_blinds_no_health_checks_of_others registers more instances that never answer than the
// server probes at the same time.
func TestServiceKey_blinds_no_health_checks_of_others(t *testing.T) {
	t.Parallel()
	harness.OnEachDatabase(t, func(t *testing.T, database string) {
		p := harness.StartServer(t, database, "BACKPLANE_OUTBOUND_NETWORKS=127.0.0.0/8")
		root := harness.SignInAdmin(t, p)
		leave := make(chan struct{})
		mute := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
			select {
			case <-leave:
			case <-r.Context().Done():
			}
		}))
		t.Cleanup(mute.Close)
		t.Cleanup(func() { close(leave) })
		failing := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusInternalServerError) }))
		t.Cleanup(failing.Close)

		key := createKey(t, root, "service:evil")
		check := harness.Fields{"path": "/", "interval": "10s", "timeout": "10s"}
		key.Do(t, harness.RegisterService, harness.Input(harness.Fields{"name": "evil", "healthCheck": check}))
		for n := range 300 {
			harness.CreateInstance(t, key, "evil", fmt.Sprint("i", n), harness.Fields{"url": fmt.Sprint(mute.URL, "/", n), "ttl": "5m"})
		}
		harness.Pause(t.Context(), 5*time.Second) // until the probes of half of them are due
		check = harness.Fields{"path": "/", "interval": "1s", "timeout": "500ms", "unhealthyThreshold": 2}
		root.Do(t, harness.RegisterService, harness.Input(harness.Fields{"name": "well", "healthCheck": check}))
		harness.CreateInstance(t, root, "well", "failing", harness.Fields{"url": failing.URL, "ttl": "5m"})
		harness.EventuallyWithin(t, 15*time.Second, "the check of another service fails", func() bool {
			data := root.Do(t, harness.ReadService, harness.Fields{"name": "well"})
			return harness.Text(data, "service", "instances", "nodes", 0, "status") == "CRITICAL"
		})
	})
}
