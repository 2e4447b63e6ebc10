package targets

import (
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/backplane-dev/backplane/e2e/harness"
)

// TestServer_acknowledges_nothing_into_a_file_that_is_gone removes and replaces the SQLite file while
// the server has it open: what it stores then would be lost.
func TestServer_acknowledges_nothing_into_a_file_that_is_gone(t *testing.T) {
	t.Parallel()
	for name, vanish := range map[string]func(path string) error{
		"removed": os.Remove,
		"replaced": func(path string) error {
			text, err := os.ReadFile(path)
			return errors.Join(err, os.Remove(path), os.WriteFile(path, text, 0o600))
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			path := filepath.Join(t.TempDir(), "backplane.db")
			p := harness.StartServer(t, "sqlite:"+path)
			root := harness.SignInAdmin(t, p)
			harness.CreateProduct(t, root, "CUP", 10)
			if err := vanish(path); err != nil {
				t.Fatal(err)
			}
			for range 5 {
				a, err := root.Send(t.Context(), harness.PlaceOrder, map[string]any{"items": []any{harness.OrderLine("CUP", 1)}})
				if err != nil || harness.Text(a.Data, "placeOrder", "order", "id") != "" || len(a.Errors) == 0 || a.Errors[0].Extensions["code"] != "UNAVAILABLE" {
					t.Fatalf("an order gave %+v, %v, want UNAVAILABLE", a, err)
				}
			}
			harness.Eventually(t, "the node is not ready", func() bool {
				resp, err := http.Get(p.BaseURL + "/readyz")
				if err != nil {
					return false
				}
				defer resp.Body.Close()
				return resp.StatusCode == http.StatusServiceUnavailable
			})
			if want := "was " + name + " while it is open"; !strings.Contains(p.Logs(), want) {
				t.Errorf("the log does not say that the file %s", want)
			}
		})
	}
}
