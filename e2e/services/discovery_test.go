package services

import (
	"net/http"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/backplane-dev/backplane/e2e/harness"
)

func TestDiscovery_lists_targets_for_Prometheus(t *testing.T) {
	t.Parallel()
	harness.OnEachDatabase(t, func(t *testing.T, database string) {
		p := harness.StartServer(t, database)
		root := harness.SignInAdmin(t, p)
		harness.CreateUserWithRole(t, p, root, "robot", "SERVICE")
		customer := harness.SignUp(t, p, "customer")
		harness.CreateService(t, root, "till", "1m")
		const path = "GET /services/till/prometheus"
		scraper := harness.WithAPIKey(t, root, "robot", "services:read")
		if got := scraper.MustREST(t, http.StatusOK, path, "").JSON(t); !cmp.Equal(got, []any{}) {
			t.Errorf("a service without instances has the targets %v, want an empty list", got)
		}
		harness.CreateInstance(t, root, "till", "a", harness.Fields{"url": "https://[2001:db8::1]/till", "metadata": harness.Fields{"zone-name": "west"}})
		harness.CreateInstance(t, root, "till", "b", harness.Fields{"url": "http://127.0.0.1:9"})
		labels := func(instance, scheme, path string) map[string]any {
			return map[string]any{
				"__scheme__": scheme, "__meta_backplane_service": "till", "__meta_backplane_instance": instance,
				"__meta_backplane_status": "PASSING", "__meta_backplane_path": path,
			}
		}
		first := labels("a", "https", "/till")
		first["__meta_backplane_metadata_zone_name"] = "west"
		want := []any{
			map[string]any{"targets": []any{"[2001:db8::1]:443"}, "labels": first},
			map[string]any{"targets": []any{"127.0.0.1:9"}, "labels": labels("b", "http", "")},
		}
		answer := scraper.MustREST(t, http.StatusOK, path, "")
		if diff := cmp.Diff(want, answer.JSON(t)); diff != "" || answer.Header.Get("Content-Type") != "application/json" {
			t.Errorf("targets of type %s (-want +got):\n%s", answer.Header.Get("Content-Type"), diff)
		}
		root.MustREST(t, http.StatusOK, path, "")
		customer.MustREST(t, http.StatusForbidden, path, "")
		harness.WithAPIKey(t, root, "robot", "orders:read").MustREST(t, http.StatusForbidden, path, "")
		harness.WithAPIKey(t, root, "robot", "service:till").MustREST(t, http.StatusOK, path, "")
		harness.Anonymous(p).MustREST(t, http.StatusUnauthorized, path, "")
		harness.Caller{BaseURL: p.BaseURL, Token: "no token"}.MustREST(t, http.StatusUnauthorized, path, "")
		scraper.MustREST(t, http.StatusNotFound, "GET /services/none/prometheus", "")
		customer.MustREST(t, http.StatusForbidden, "GET /services/none/prometheus", "")
	})
}
