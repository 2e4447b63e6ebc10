package registry

import (
	"net/netip"
	"net/url"
	"slices"
	"strings"

	"github.com/backplane-dev/backplane/internal/fault"
)

// maxTrustedAddresses bounds the networks and URLs of one service.
const maxTrustedAddresses = 50

// TrustsInstance reports whether ADMIN trusts the service at this URL of an instance. API keys register
// instances, so that the name of a service alone proves nothing.
//
// A URL without a path stands for its whole origin, one with a path for itself. A network holds a URL
// whose host is an address in it; a host name is in no network, since the answers of name servers may
// change.
func (s *Service) TrustsInstance(instanceURL string) bool {
	if !s.Trusted || len(s.TrustedAddresses) == 0 {
		return false
	}
	u, err := url.Parse(instanceURL)
	if err != nil {
		return false
	}
	host, hostErr := netip.ParseAddr(u.Hostname())
	return slices.ContainsFunc(s.TrustedAddresses, func(address string) bool {
		if n, err := netip.ParsePrefix(address); err == nil {
			return hostErr == nil && n.Contains(host.Unmap())
		}
		t, err := url.Parse(address)
		return err == nil && originOf(t) == originOf(u) && (t.Path == "" || t.EscapedPath() == u.EscapedPath())
	})
}

// NamesCallersTo reports whether the instance at the URL may receive tokens that name callers: any of a
// service that is trusted nowhere, since it alone accepts them; of another only those at its trusted
// addresses, since the others could pass for the caller there.
func (s *Service) NamesCallersTo(instanceURL string) bool {
	return !s.Trusted || len(s.TrustedAddresses) == 0 || s.TrustsInstance(instanceURL)
}

// originOf returns scheme, host and port of a URL.
func originOf(u *url.URL) string {
	port := u.Port()
	if port == "" && u.Scheme == "http" {
		port = "80"
	} else if port == "" {
		port = "443"
	}
	return u.Scheme + " " + strings.ToLower(u.Hostname()) + " " + port
}

// normalizeTrustedAddresses returns the networks and URLs in one form, sorted, each once.
func normalizeTrustedAddresses(in []string) ([]string, error) {
	var out []string
	for _, text := range in {
		address, err := normalizeTrustedAddress(text)
		if err != nil {
			return nil, err
		}
		out = append(out, address)
	}
	slices.Sort(out)
	if out = slices.Compact(out); len(out) > maxTrustedAddresses {
		return nil, fault.New(CodeServiceInvalid, "A service has at most %d trusted addresses.", maxTrustedAddresses).At("trustedAddresses")
	}
	return out, nil
}

func normalizeTrustedAddress(text string) (string, error) {
	if addr, err := netip.ParseAddr(text); err == nil && addr.Zone() == "" {
		addr = addr.Unmap()
		return netip.PrefixFrom(addr, addr.BitLen()).String(), nil
	}
	if n, err := netip.ParsePrefix(text); err == nil && n.Bits() > 0 && !n.Addr().Is4In6() {
		return n.Masked().String(), nil
	}
	u, err := normalizeURL(text)
	if err != nil {
		return "", fault.New(CodeServiceInvalid, "A trusted address is a network such as 10.1.0.0/16, an IP address, or the URL of instances.").At("trustedAddresses")
	}
	return u, nil
}
