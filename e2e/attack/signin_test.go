package attack

import (
	"context"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/backplane-dev/backplane/e2e/harness"
)

const signIn = `{"query":"mutation { signIn(input: {login: \"LOGIN\", password: \"a password of mine\"}) { session { accessToken } userErrors { code } } }"}`

// signInFrom sends a sign-in from an address of this machine, and reports whether it succeeded.
func signInFrom(ctx context.Context, client *http.Client, baseURL, login string) bool {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, baseURL+"/graphql", strings.NewReader(strings.ReplaceAll(signIn, "LOGIN", login)))
	if err != nil {
		return false
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := client.Do(req)
	if err != nil {
		return false
	}
	defer resp.Body.Close()
	var text strings.Builder
	_ = resp.Write(&text)
	return strings.Contains(text.String(), `"accessToken":"`)
}

// clientAt returns a client at an address of this machine.
func clientAt(t *testing.T, address string) *http.Client {
	t.Helper()
	dialer := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(address)}}
	transport := &http.Transport{DialContext: dialer.DialContext, MaxIdleConnsPerHost: 256}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Timeout: 30 * time.Second, Transport: transport}
}

// TestSignIn_is_fair_to_others_while_one_address_floods_it keeps more right passwords waiting than the
// hashing queue has places.
func TestSignIn_is_fair_to_others_while_one_address_floods_it(t *testing.T) {
	t.Parallel()
	harness.OnEachDatabase(t, func(t *testing.T, database string) {
		p := harness.StartServer(t, database) // without a rate limit, which would end the flood
		harness.SignUp(t, p, "eve")
		harness.SignUp(t, p, "ada")
		flood, other := clientAt(t, "127.0.0.2"), clientAt(t, "127.0.0.1")
		ctx, stop := context.WithCancel(t.Context())
		var flooding sync.WaitGroup
		defer flooding.Wait()
		defer stop()
		var served atomic.Int64
		for range 200 {
			flooding.Go(func() {
				for ctx.Err() == nil {
					if signInFrom(ctx, flood, p.BaseURL, "eve") {
						served.Add(1)
					}
				}
			})
		}
		harness.Eventually(t, "the flood is served", func() bool { return served.Load() > 5 })
		for range 5 {
			before := served.Load()
			if !signInFrom(t.Context(), other, p.BaseURL, "ada") {
				t.Fatal("a caller at another address is refused")
			}
			if n := served.Load() - before; n > 50 { // half of the places of the queue
				t.Errorf("%d sign-ins of the flood were served before one of another address", n)
			}
		}
	})
}
