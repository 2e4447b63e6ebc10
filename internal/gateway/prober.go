package gateway

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"strconv"
	"strings"
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

// Bounds of what a health check reads of a response body, in bytes.
const (
	maxProbeBody   = 4 << 10
	maxProbeOutput = 1 << 10 // that is returned
)

// Probe implements registry.Prober: a status from 200 to 399 is healthy. It does not follow redirects.
func (p *Prober) Probe(ctx context.Context, url string, timeout time.Duration) (output string, err error) {
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return "", errors.New("its URL cannot be called")
	}
	req.Header.Set("User-Agent", "backplane-check")
	resp, err := p.client.Do(req)
	switch {
	case errors.Is(err, ErrDenied):
		return "", ErrDenied
	case ctx.Err() != nil:
		return "", fmt.Errorf("no answer within %v", timeout)
	case errors.Is(err, syscall.ECONNREFUSED):
		return "", registry.ErrRefused
	case isTLSFailure(err):
		return "", fmt.Errorf("TLS failed: %s", explainTLS(err))
	case err != nil:
		return "", errors.New("no connection or no answer") // details could reveal the network
	}
	defer resp.Body.Close()
	output = probeOutput(resp)
	if resp.StatusCode < http.StatusOK || resp.StatusCode >= http.StatusBadRequest {
		return output, fmt.Errorf("status %d", resp.StatusCode)
	}
	return output, nil
}

// probeOutput returns the status of a response, with the start of a body that is text. It reads the body, up to a limit.
func probeOutput(resp *http.Response) string {
	body, _ := io.ReadAll(io.LimitReader(resp.Body, maxProbeBody)) // what came before an error counts
	status := "status " + strconv.Itoa(resp.StatusCode)
	if len(body) == 0 || !isText(resp.Header) {
		return status
	}
	return status + ": " + string(body[:min(len(body), maxProbeOutput)])
}

// isText reports whether a body is text that people can read. HTML is not: it says little in its first bytes.
func isText(h http.Header) bool {
	media, _, err := mime.ParseMediaType(h.Get("Content-Type"))
	return err == nil && h.Get("Content-Encoding") == "" &&
		(media == "text/plain" || media == "application/json" || strings.HasSuffix(media, "+json"))
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
