package provider

import (
	"cmp"
	"context"
	"errors"
	"net/http"
	"net/url"
	"time"

	"github.com/backplane-dev/backplane/internal/balance"
	"github.com/backplane-dev/backplane/internal/gateway"
	"github.com/backplane-dev/backplane/internal/payment"
	"github.com/backplane-dev/backplane/internal/registry"
	"github.com/backplane-dev/backplane/internal/uid"
)

// Config tunes a Client. The zero value is ready to use.
type Config struct {
	Service     string        // name of the registered service; default payment-service
	Timeout     time.Duration // of a whole call, further attempts included; default 10 s
	CallbackURL string        // where the provider sends outcomes that come later; empty for nowhere: they are asked for
}

// Deps are the dependencies of a Client. All are required.
type Deps struct {
	Guard     *gateway.Guard
	Directory *registry.Directory
	Pool      *balance.Pool
}

// Client calls the instances of a registered payment service. It is safe for concurrent use.
type Client struct {
	deps      Deps
	cfg       Config
	transport http.RoundTripper
}

var (
	_ payment.Provider     = (*Client)(nil)
	_ payment.Availability = (*Client)(nil)
)

// connectTime is how long a connection to an instance may take, TLS included.
const connectTime = 2 * time.Second

// NewClient returns a Client, which owns its connections to instances.
func NewClient(deps Deps, cfg Config) (*Client, error) {
	if deps.Guard == nil || deps.Directory == nil || deps.Pool == nil {
		return nil, errors.New("payment provider: a dependency is missing")
	}
	cfg.Service, cfg.Timeout = cmp.Or(cfg.Service, payment.DefaultService), cmp.Or(cfg.Timeout, payment.DefaultTimeout)
	t := deps.Guard.Transport()
	t.DialContext = limitDial(deps.Guard, connectTime)
	t.TLSHandshakeTimeout = connectTime
	t.MaxIdleConns, t.MaxIdleConnsPerHost, t.IdleConnTimeout = 256, 64, 25*time.Second
	return &Client{deps, cfg, t}, nil
}

// marked returns the instances of the service; nil unless it is registered and ADMIN has marked it as payment provider.
func (c *Client) marked() *registry.Set {
	set := c.deps.Directory.Set(c.cfg.Service)
	if set == nil || !set.Service.PaymentProvider {
		return nil
	}
	return set
}

// IsMarked reports whether the service is registered and ADMIN has marked it as payment provider.
func (c *Client) IsMarked() bool { return c.marked() != nil }

// Available implements payment.Availability: while no instance is in rotation, payments wait unclaimed.
func (c *Client) Available() bool {
	set := c.marked()
	return set != nil && len(set.Instances) > 0
}

// Charge implements payment.Provider.
func (c *Client) Charge(ctx context.Context, r payment.ChargeRequest) (payment.Answer, error) {
	return c.do(ctx, request{
		method: http.MethodPost, path: "/payments", id: string(r.Payment), payment: r.Payment,
		body: chargeBody{ID: r.Payment, Amount: amountOf(r.Amount), OrderNumber: r.OrderNumber, CallbackURL: c.cfg.CallbackURL},
	})
}

// FindPayment implements payment.Provider.
func (c *Client) FindPayment(ctx context.Context, id uid.Payment) (payment.Answer, error) {
	return c.do(ctx, request{method: http.MethodGet, path: paymentPath(id), id: string(id), payment: id, absent: codePaymentNotFound})
}

// Refund implements payment.Provider.
func (c *Client) Refund(ctx context.Context, r payment.RefundRequest) (payment.Answer, error) {
	return c.do(ctx, request{
		method: http.MethodPost, path: paymentPath(r.Payment) + "/refunds", id: string(r.Refund), payment: r.Payment,
		body: refundBody{ID: r.Refund, Amount: amountOf(r.Amount), Reason: r.Reason, CallbackURL: c.cfg.CallbackURL},
	})
}

// FindRefund implements payment.Provider.
func (c *Client) FindRefund(ctx context.Context, id uid.Payment, refund payment.RefundID) (payment.Answer, error) {
	path := paymentPath(id) + "/refunds/" + url.PathEscape(string(refund))
	return c.do(ctx, request{method: http.MethodGet, path: path, id: string(refund), payment: id, absent: codeRefundNotFound})
}

func paymentPath(id uid.Payment) string { return "/payments/" + url.PathEscape(string(id)) }

// request is a call of the protocol. Every call is idempotent: a POST by its id, which all instances of
// the service share.
type request struct {
	method  string
	path    string
	id      string      // of the payment or refund that the answer must name
	payment uid.Payment // equal keys of CONSISTENT_HASH go to one instance
	body    any         // nil for none
	absent  errorCode   // by which an instance says that it never got the payment or refund; empty if it cannot
}
