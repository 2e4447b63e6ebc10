package conformance_test

import (
	"testing"

	"github.com/backplane-dev/backplane/internal/testenv"
)

// TestGraphiQL_serves_a_first_session has tokens expire so early that each request renews them.
func TestGraphiQL_serves_a_first_session(t *testing.T) {
	t.Parallel()
	browser := testenv.Browser(t)
	server := testenv.ServerWith(t, []string{"--demo"}, "BACKPLANE_RATE_LIMIT=off", "BACKPLANE_ACCESS_TOKEN_TIME=5s")
	node(t, "graphiql.mjs", server.BaseURL+"/", browser)
}
