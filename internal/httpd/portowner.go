package httpd

import (
	"context"
	"io"
	"net"
	"net/http"
	"time"

	"github.com/backplane-dev/backplane/internal/problem"
)

// probeTime bounds the question what listens on a port that is taken.
const probeTime = time.Second

// DescribeListener says what has the address that this server was to listen on, and what the operator can do.
func DescribeListener(ctx context.Context, address string) string {
	const others = "stop it, or start this server with another --listen and --admin-listen"
	if isBackplane(ctx, address) {
		return "another Backplane serves there: " + others + ", and a --database-url of its own"
	}
	return "another program listens there: " + others
}

// isBackplane reports whether what listens at the address answers as this server does. What cannot be read is of another program.
func isBackplane(ctx context.Context, address string) bool {
	if host, port, err := net.SplitHostPort(address); err == nil && host == "" {
		address = net.JoinHostPort("127.0.0.1", port)
	}
	ctx, cancel := context.WithTimeout(ctx, probeTime)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+address+"/readyz", nil)
	if err != nil {
		return false
	}
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		return false
	}
	defer resp.Body.Close()
	text, _ := io.ReadAll(io.LimitReader(resp.Body, 100)) // see above
	return string(text) == "ready\n" || resp.Header.Get("Content-Type") == problem.MediaType
}
