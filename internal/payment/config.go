package payment

import (
	"errors"
	"time"

	"github.com/backplane-dev/backplane/internal/setting"
)

// Off in place of the name of a service turns payments off.
const Off = "off"

// What payments do without settings.
const (
	DefaultService  = "payment-service" // name of the registered service
	defaultDeadline = 24 * time.Hour
	DefaultTimeout  = 10 * time.Second
)

// Config tunes the payments of a server. The zero value is ready to use.
type Config struct {
	Service  string        // name of the registered service that is the payment provider, or Off; default payment-service
	Deadline time.Duration // after which a charge fails, and a refund is reported; default 24 h
	Timeout  time.Duration // of one call of the provider; default 10 s
}

// Settings declares the tunables.
func (c *Config) Settings() []setting.Setting {
	return []setting.Setting{
		setting.Value(&c.Service, "PAYMENT_SERVICE", DefaultService, "name of the registered service that charges orders, once ADMIN has marked it as payment provider; `off` for a shop whose orders are not paid through this server: they stay PENDING", parseService),
		setting.Value(&c.Deadline, "PAYMENT_DEADLINE", "24h", "how long a payment is tried; then it fails, and its order is cancelled and its stock given back", parseDeadline),
		setting.Duration(&c.Timeout, "PAYMENT_TIMEOUT", DefaultTimeout, "how long one call of the payment provider may take; an answer that does not come by then is asked for later"),
	}
}

func parseService(text string) (string, error) {
	if text == "" {
		return "", errors.New("the name of a service, or off")
	}
	return text, nil
}

// maxDeadline keeps a customer's money and a shop's stock from being undecided for ever.
const maxDeadline = 30 * 24 * time.Hour

func parseDeadline(text string) (time.Duration, error) {
	d, err := time.ParseDuration(text)
	if err != nil || d < time.Second || d > maxDeadline {
		return 0, errors.New("a time from 1s to 720h, such as 24h")
	}
	return d, nil
}
