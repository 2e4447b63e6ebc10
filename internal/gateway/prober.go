package gateway

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"syscall"
	"time"

	"github.com/backplane-dev/backplane/internal/registry"
)

// Prober implements registry.Prober with HTTP requests through a Guard.
type Prober struct{ client *http.Client }

var _ registry.Prober = (*Prober)(nil)

// NewProber returns a Prober that dials through the guard.
func NewProber(g *Guard) *Prober {
	t := g.Transport()
	t.DisableKeepAlives = true // a health check must show that a connection can be made
	return &Prober{&http.Client{Transport: t, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}}
}

// maxProbeBody limits how much of a response body a health check reads.
const maxProbeBody = 4 << 10

// Probe implements registry.Prober: a status from 200 to 399 is healthy. It does not follow redirects.
func (p *Prober) Probe(ctx context.Context, url string, timeout time.Duration) error {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return errors.New("its URL cannot be called")
	}
	req.Header.Set("User-Agent", "backplane-check")
	resp, err := p.client.Do(req)
	switch {
	case errors.Is(err, errDenied):
		return errDenied
	case ctx.Err() != nil:
		return fmt.Errorf("no answer within %v", timeout)
	case errors.Is(err, syscall.ECONNREFUSED):
		return registry.ErrRefused
	case err != nil:
		return errors.New("no connection or no answer") // details could reveal the network
	}
	defer resp.Body.Close()
	_, _ = io.CopyN(io.Discard, resp.Body, maxProbeBody)
	if resp.StatusCode < http.StatusOK || resp.StatusCode >= http.StatusBadRequest {
		return fmt.Errorf("status %d", resp.StatusCode)
	}
	return nil
}
