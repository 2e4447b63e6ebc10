package config

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/backplane-dev/backplane/internal/httpd"
	"github.com/backplane-dev/backplane/internal/rest"
	"github.com/backplane-dev/backplane/internal/secrets"
	"github.com/backplane-dev/backplane/internal/signing"
)

// A parser's error continues the sentence "BACKPLANE_X is …, but it must be".
type parser[T any] func(value string) (T, error)

const schemeSQLite = "sqlite:"

func parseAny(value string) (string, error) { return value, nil }

func parseSecret(value string) (Secret, error) { return Secret(value), nil }

func parseAddress(value string) (string, error) {
	const want = "host:port, with a port from 0 to 65535"
	_, port, err := net.SplitHostPort(value)
	if err != nil {
		return "", errors.New(want)
	}
	if _, err := strconv.ParseUint(port, 10, 16); err != nil {
		return "", errors.New(want)
	}
	return value, nil
}

func parseAddressOrOff(value string) (string, error) {
	if value == Off {
		return value, nil
	}
	if _, err := parseAddress(value); err != nil {
		return "", fmt.Errorf("%w, or %s", err, Off)
	}
	return value, nil
}

func parseDatabase(value string) (Database, error) {
	const want = "sqlite:PATH or postgres://USER:PASSWORD@HOST/NAME; nothing else is supported"
	if path, ok := cutScheme(value, schemeSQLite); ok && strings.TrimPrefix(path, "//") != "" && utf8.ValidString(path) {
		return Database(value), nil
	}
	u, err := url.Parse(value)
	if err != nil || u.Scheme != "postgres" && u.Scheme != "postgresql" || u.Opaque != "" {
		return "", errors.New(want)
	}
	return Database(value), nil
}

func parseRedisURL(value string) (Secret, error) {
	u, err := url.Parse(value)
	if err != nil || u.Scheme != "redis" && u.Scheme != "rediss" || u.Host == "" {
		return "", errors.New("redis://HOST:PORT/DB, or rediss:// over TLS")
	}
	return Secret(value), nil
}

func cutScheme(value, scheme string) (rest string, ok bool) {
	if len(value) < len(scheme) || !strings.EqualFold(value[:len(scheme)], scheme) {
		return "", false
	}
	return value[len(scheme):], true
}

func parseSecretKey(value string) (secrets.MasterKey, error) {
	key, err := secrets.ParseMasterKey(value)
	if err != nil {
		return secrets.MasterKey{}, errors.New("32 to 1024 random characters, e.g. made by `openssl rand -base64 32`")
	}
	return key, nil
}

// parseCallbackSecrets reads the secrets of callbacks: the former one stays valid beside its successor until
// all senders have that.
func parseCallbackSecrets(value string) ([]signing.Secret, error) {
	all, err := parseList(signing.ParseSecret)(value)
	if err != nil || len(all) > 2 {
		return nil, errors.New("one secret, or two with a comma between them, each whsec_ and 24 to 64 bytes in base64")
	}
	return all, nil
}

// parsePublicURL reads the URL of the server as others see it, and cuts slashes at its end.
func parsePublicURL(value string) (string, error) {
	u, err := url.Parse(value)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		return "", errors.New("a URL such as https://shop.example, perhaps with a path")
	}
	return strings.TrimRight(u.String(), "/"), nil
}

func parseNetwork(value string) (netip.Prefix, error) {
	if addr, err := netip.ParseAddr(value); err == nil && addr.Zone() == "" {
		return netip.PrefixFrom(addr, addr.BitLen()), nil
	}
	p, err := netip.ParsePrefix(value)
	if err != nil {
		return netip.Prefix{}, errors.New("addresses or networks such as 10.0.0.0/8, with commas between them")
	}
	return p.Masked(), nil
}

// parseTrustedNetwork reads NETWORK=KEY. The whole internet cannot be trusted.
func parseTrustedNetwork(value string) (n httpd.TrustedNetwork, err error) {
	const want = "networks with their API keys such as 10.1.0.0/16=KEY, with commas between them, none of them the whole internet"
	where, key, _ := strings.Cut(value, "=")
	n.Prefix, err = parseNetwork(strings.TrimSpace(where))
	n.Key = strings.TrimSpace(key)
	if err != nil || n.Prefix.Bits() == 0 || n.Key == "" {
		return httpd.TrustedNetwork{}, errors.New(want)
	}
	return n, nil
}

// parseDeprecation reads ROUTE SINCE [SUNSET [SUCCESSOR]], where ROUTE is * or a method
// and a path, and the days are those of UTC.
func parseDeprecation(value string) (d rest.Deprecation, err error) {
	const want = "routes with days such as GET /users 2026-06-01 2027-06-01 https://shop.example/docs, or * for all routes, with commas between them"
	words := strings.Fields(value)
	if len(words) > 0 && words[0] == "*" {
		d.Route, words = "*", words[1:]
	} else if len(words) > 1 {
		d.Route, words = words[0]+" "+words[1], words[2:]
	}
	if d.Route == "" || len(words) < 1 || len(words) > 3 {
		return rest.Deprecation{}, errors.New(want)
	}
	if d.Since, err = time.Parse(time.DateOnly, words[0]); err != nil {
		return rest.Deprecation{}, errors.New(want)
	}
	if len(words) > 1 {
		if d.Sunset, err = time.Parse(time.DateOnly, words[1]); err != nil || d.Sunset.Before(d.Since) {
			return rest.Deprecation{}, errors.New(want + "; a route does not end before it is deprecated")
		}
	}
	if len(words) > 2 {
		u, err := url.Parse(words[2])
		if err != nil || strings.ContainsAny(words[2], `<>"`) || u.Host == "" && !strings.HasPrefix(u.Path, "/") {
			return rest.Deprecation{}, errors.New(want)
		}
		d.Successor = words[2]
	}
	return d, nil
}

func parseOrigins(value string) ([]string, error) {
	if value == "*" {
		return []string{"*"}, nil
	}
	return parseList(parseOrigin)(value)
}

func parseOrigin(value string) (string, error) {
	u, err := url.Parse(value)
	if err != nil || u.Scheme != "https" && u.Scheme != "http" || u.Host == "" || value != u.Scheme+"://"+u.Host {
		return "", errors.New("* or origins such as https://shop.example, without a path, with commas between them")
	}
	return strings.ToLower(value), nil
}

// headerName is a token as of RFC 9110.
var headerName = regexp.MustCompile("^[A-Za-z0-9!#$%&'*+.^_`|~-]+$")

// parseHeaderName reads the name of a header, or *.
func parseHeaderName(value string) (string, error) {
	if !headerName.MatchString(value) {
		return "", errors.New("names of headers such as traceparent, with commas between them")
	}
	return value, nil
}

// parseContact reads the URL of people: mailto:, https: or tel:.
func parseContact(value string) (string, error) {
	u, err := url.Parse(value)
	if err != nil || !slices.Contains([]string{"mailto", "https", "tel"}, u.Scheme) || strings.ContainsAny(value, "\r\n ") {
		return "", errors.New("a URL such as mailto:security@shop.example or https://shop.example/security")
	}
	return value, nil
}

// parseHost reads a host name, *.name or *.
func parseHost(value string) (string, error) {
	if value == "" || strings.ContainsAny(value, ":/ ") || strings.Contains(strings.TrimPrefix(value, "*"), "*") || len(value) > 1 && value[0] == '*' && value[1] != '.' {
		return "", errors.New("host names such as shop.example or *.shop.example, without a port, with commas between them, or *")
	}
	return strings.ToLower(value), nil
}

// parseList reads a list with commas between its items.
func parseList[T any](read parser[T]) parser[[]T] {
	return func(value string) ([]T, error) {
		var items []T
		for part := range strings.SplitSeq(value, ",") {
			item, err := read(strings.TrimSpace(part))
			if err != nil {
				return nil, err
			}
			items = append(items, item)
		}
		return items, nil
	}
}

// parseEither reads one of two words.
func parseEither(yes, no string) parser[bool] {
	return func(value string) (bool, error) {
		if value != yes && value != no {
			return false, fmt.Errorf("%s or %s", yes, no)
		}
		return value == yes, nil
	}
}

func parseLogLevel(value string) (slog.Level, error) {
	levels := map[string]slog.Level{"debug": slog.LevelDebug, "info": slog.LevelInfo, "warn": slog.LevelWarn, "error": slog.LevelError}
	l, ok := levels[value]
	if !ok {
		return 0, errors.New("debug, info, warn or error")
	}
	return l, nil
}

func parseLogFormat(value string) (LogFormat, error) {
	if f := LogFormat(value); f == LogText || f == LogJSON {
		return f, nil
	}
	return "", fmt.Errorf("%s or %s", LogText, LogJSON)
}

// parseTokenTime reads the life of an access token.
func parseTokenTime(value string) (time.Duration, error) {
	d, err := time.ParseDuration(value)
	if err != nil || d < 2*time.Second || d > 5*time.Minute {
		return 0, errors.New("a time from 2s to 5m")
	}
	return d, nil
}

// parseSessionTime reads the life of a session.
func parseSessionTime(value string) (time.Duration, error) {
	d, err := time.ParseDuration(value)
	if err != nil || d < time.Minute || d > 366*24*time.Hour {
		return 0, errors.New("a time from 1m to 8784h (366 days)")
	}
	return d, nil
}

// parseDelay reads a time that may be zero.
func parseDelay(value string) (time.Duration, error) {
	d, err := time.ParseDuration(value)
	if err != nil || d < 0 || d > 10*time.Minute {
		return 0, errors.New("a time from 0s to 10m, such as 7s")
	}
	return d, nil
}
