package services

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/backplane-dev/backplane/e2e/harness"
)

// TestServer_lets_go_of_dead_instances_after_a_redeploy kills all instances of a service, which refuse
// connections from then on, and starts as many or fewer under new names.
func TestServer_lets_go_of_dead_instances_after_a_redeploy(t *testing.T) {
	t.Parallel()
	for name, started := range map[string]int{"as many as before": 4, "fewer": 1} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			harness.OnEachDatabase(t, func(t *testing.T, database string) {
				root := harness.SignInAdmin(t, harness.StartServer(t, database, "BACKPLANE_OUTBOUND_NETWORKS=127.0.0.0/8"))
				harness.CreateService(t, root, "echo", "2s", 1, 1, 1, 1) // send no heartbeats
				health := func() string {
					return harness.Text(root.Do(t, `{ service(name: "echo") { health } }`, nil), "service", "health")
				}
				harness.Eventually(t, "the service is degraded", func() bool { return health() == "DEGRADED" })
				for n := range started {
					harness.CreateInstance(t, root, "echo", fmt.Sprint("new", n), harness.Fields{"ttl": "10m"})
				}
				harness.EventuallyWithin(t, 2*time.Minute, "the service is healthy", func() bool { return health() == "HEALTHY" })
				for range 40 {
					picked := harness.Text(root.Do(t, harness.PickInstance, harness.Input(harness.Fields{"service": "echo"})), "pickInstance", "instance", "instanceId")
					if !strings.HasPrefix(picked, "new") {
						t.Fatalf("picked %q, want a new instance", picked)
					}
				}
			})
		})
	}
}
