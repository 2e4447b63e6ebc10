package gateway

import (
	"context"
	"crypto/tls"
	"crypto/x509"
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
	case isTLSFailure(err):
		return fmt.Errorf("TLS failed: %s", explainTLS(err))
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

// isTLSFailure reports whether a connection was made, but no TLS session on it.
func isTLSFailure(err error) bool {
	_, certificate := errors.AsType[*tls.CertificateVerificationError](err)
	_, record := errors.AsType[tls.RecordHeaderError](err)
	_, alert := errors.AsType[tls.AlertError](err)
	return certificate || record || alert || errors.Is(err, http.ErrSchemeMismatch)
}

// explainTLS says what the operator of the service can mend, without details that could reveal the
// network.
func explainTLS(err error) string {
	_, authority := errors.AsType[x509.UnknownAuthorityError](err)
	_, host := errors.AsType[x509.HostnameError](err)
	invalid, ok := errors.AsType[x509.CertificateInvalidError](err)
	_, record := errors.AsType[tls.RecordHeaderError](err)
	switch {
	case authority:
		return "the certificate is signed by an authority that this server does not know (SSL_CERT_FILE)"
	case host:
		return "the certificate is for another host name"
	case ok && invalid.Reason == x509.Expired:
		return "the certificate has expired, or is not valid yet"
	case record || errors.Is(err, http.ErrSchemeMismatch):
		return "it answers without TLS"
	}
	return "the handshake was refused"
}
