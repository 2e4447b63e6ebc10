package registry

import (
	"cmp"
	"errors"
	"net/url"
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/backplane-dev/backplane/internal/fault"
	"github.com/backplane-dev/backplane/internal/validate"
)

// Limits of services and instances.
const (
	maxDescription = 2000 // characters
	maxTags        = 32
	maxTag         = 64 // characters
	maxEntries     = 32 // of metadata
	maxKey         = 64 // characters
	maxValue       = 512
	maxInstanceID  = 128  // characters
	maxURL         = 2048 // bytes
	maxReason      = 200  // characters
	MaxWeight      = 1000
	maxPath        = 512 // bytes

	MinTTL     = 2 * time.Second
	MaxTTL     = 10 * time.Minute
	defaultTTL = 30 * time.Second

	minInterval, maxInterval = time.Second, 10 * time.Minute
	minTimeout, maxTimeout   = 50 * time.Millisecond, 30 * time.Second
	maxThreshold             = 20

	// MaxIncarnation is the largest whole number that JSON readers agree on.
	MaxIncarnation = 1<<53 - 1
)

func validateName(s string) error {
	if !validate.IsServiceName(s) {
		return fault.New(CodeServiceInvalid,
			"The name of a service is 1 to %d lower-case letters and digits, with -, . and _ between them.", validate.MaxServiceName).At("name")
	}
	return nil
}

func normalizeTags(tags []string) ([]string, error) {
	sorted := slices.Compact(slices.Sorted(slices.Values(tags)))
	if len(sorted) > maxTags {
		return nil, fault.New(CodeServiceInvalid, "A service has at most %d tags.", maxTags).At("tags")
	}
	for _, t := range sorted {
		if !isToken(t, maxTag) {
			return nil, fault.New(CodeServiceInvalid, "A tag is 1 to %d printable ASCII characters without spaces.", maxTag).At("tags")
		}
	}
	return sorted, nil
}

func validateMetadata(m map[string]string) error {
	if len(m) > maxEntries {
		return fault.New(fault.BadInput, "metadata has at most %d entries.", maxEntries).At("metadata")
	}
	for k, v := range m {
		switch {
		case !isToken(k, maxKey):
			return fault.New(fault.BadInput, "A key of metadata is 1 to %d printable ASCII characters without spaces.", maxKey).At("metadata")
		case utf8.RuneCountInString(v) > maxValue || !utf8.ValidString(v) || strings.ContainsFunc(v, unicode.IsControl):
			return fault.New(fault.BadInput, "A value of metadata is at most %d characters long, on one line.", maxValue).At("metadata", k)
		}
	}
	return nil
}

// isToken reports whether the text is 1 to limit printable ASCII characters
// without spaces.
func isToken(s string, limit int) bool {
	return s != "" && len(s) <= limit && !strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r > '~' })
}

// normalize checks a health check and fills in what it leaves open.
func (h *HealthCheck) normalize() (*HealthCheck, error) {
	if h == nil {
		return nil, nil
	}
	c := *h
	c.Interval = cmp.Or(c.Interval, 10*time.Second)
	c.Timeout = cmp.Or(c.Timeout, min(2*time.Second, c.Interval))
	c.Healthy, c.Unhealthy = cmp.Or(c.Healthy, 2), cmp.Or(c.Unhealthy, 3)
	var errs []error
	if !isToken(c.Path, maxPath) || c.Path[0] != '/' || strings.Contains(c.Path, "#") {
		errs = append(errs, errHealthCheck("path", "The path of a health check begins with / and has at most %d printable ASCII characters.", maxPath))
	}
	if c.Interval < minInterval || c.Interval > maxInterval {
		errs = append(errs, errHealthCheck("interval", "The interval of a health check is from %v to %v.", minInterval, maxInterval))
	}
	if c.Timeout < minTimeout || c.Timeout > min(maxTimeout, c.Interval) {
		errs = append(errs, errHealthCheck("timeout", "The timeout of a health check is from %v to %v, and not longer than its interval.", minTimeout, maxTimeout))
	}
	if c.Healthy < 1 || c.Healthy > maxThreshold {
		errs = append(errs, errHealthCheck("healthyThreshold", "The thresholds of a health check are from 1 to %d.", maxThreshold))
	}
	if c.Unhealthy < 1 || c.Unhealthy > maxThreshold {
		errs = append(errs, errHealthCheck("unhealthyThreshold", "The thresholds of a health check are from 1 to %d.", maxThreshold))
	}
	return &c, errors.Join(errs...)
}

func errHealthCheck(field, format string, args ...any) error {
	return fault.New(CodeServiceInvalid, format, args...).At("healthCheck", field)
}

// normalizeURL checks where an instance is called: http or https, a host, and
// nothing that would change the meaning of a path put behind it.
func normalizeURL(s string) (string, error) {
	u, err := url.Parse(s)
	if err != nil || len(s) > maxURL || u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "" || u.Opaque != "" ||
		u.User != nil || u.RawQuery != "" || u.ForceQuery || u.Fragment != "" || !isToken(s, maxURL) {
		return "", fault.New(CodeInstanceInvalid,
			"The URL of an instance is http or https with a host and perhaps a path, without user, query and fragment.").At("url")
	}
	return strings.TrimSuffix(s, "/"), nil
}
