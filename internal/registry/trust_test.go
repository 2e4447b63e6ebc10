package registry

import (
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/backplane-dev/backplane/internal/fault"
	"github.com/backplane-dev/backplane/internal/validate"
)

// trust returns a service that is trusted at the addresses.
func trust(t *testing.T, addresses ...string) *Service {
	t.Helper()
	s := givenService(t)
	if err := s.Apply(ServiceChange{Trusted: validate.Of(true), TrustedAddresses: validate.Of(addresses)}, at); err != nil {
		t.Fatal(err)
	}
	return s
}

func TestService_TrustsInstance_at_named_addresses_alone(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		address   string
		in, notIn []string
	}{
		{"10.1.0.0/16", []string{"http://10.1.2.3", "https://10.1.0.1:8443/a", "http://[::ffff:10.1.2.3]:80"},
			[]string{"http://10.2.0.1", "http://10.1.2.3.evil.example", "http://evil.example/10.1.2.3", "http://168034563", "http://10.1.515", "http://[::ffff:10.2.0.1]"}},
		{"::ffff:10.1.2.3", []string{"http://10.1.2.3"}, []string{"http://10.1.2.4"}},
		{"fd00::/8", []string{"http://[fd00::1]:80"}, []string{"http://[fe80::1]", "http://[fd00::1%25eth0]", "http://10.1.2.3"}},
		{"https://echo.internal", []string{"https://echo.internal", "https://ECHO.internal:443/a/b"},
			[]string{"http://echo.internal", "https://echo.internal:8443", "https://echo.internal.evil.example", "https://evil.example/echo.internal"}},
		{"http://shared.internal:8080/ours/", []string{"http://shared.internal:8080/ours"},
			[]string{"http://shared.internal:8080", "http://shared.internal:8080/theirs", "http://shared.internal:8080/ours/../theirs", "http://shared.internal:8080/ours%2f..%2ftheirs", "http://shared.internal/ours"}},
	} {
		s := trust(t, tt.address)
		for _, u := range tt.in {
			if !s.TrustsInstance(u) || !s.NamesCallersTo(u) {
				t.Errorf("%s is not trusted at %s", u, tt.address)
			}
		}
		for _, u := range tt.notIn {
			if s.TrustsInstance(u) || s.NamesCallersTo(u) {
				t.Errorf("%s is trusted at %s", u, tt.address)
			}
		}
	}
	for name, s := range map[string]*Service{"an untrusted service": givenService(t), "one of before addresses were named": {Trusted: true}} {
		if s.TrustsInstance("http://10.1.2.3") || !s.NamesCallersTo("http://10.1.2.3") {
			t.Errorf("%s trusts its instance, or does not learn its callers", name)
		}
	}
}

func TestService_refuses_to_be_trusted_everywhere_or_nowhere(t *testing.T) {
	t.Parallel()
	many := make([]string, maxTrustedAddresses+1)
	for i := range many {
		many[i] = fmt.Sprint("10.0.0.", i)
	}
	for name, addresses := range map[string][]string{
		"none": {}, "the internet": {"0.0.0.0/0"}, "all of IPv6": {"::/0"}, "all of IPv4, as IPv6": {"::ffff:0.0.0.0/96"}, "a name": {"echo.internal"}, "nothing": {""},
		"a user": {"https://user@echo.internal"}, "a query": {"https://echo.internal?x"}, "another scheme": {"ftp://echo.internal"}, "a zone": {"fe80::1%eth0"}, "too many": many,
	} {
		s := givenService(t)
		err := s.Apply(ServiceChange{Trusted: validate.Of(true), TrustedAddresses: validate.Of(addresses)}, at)
		if f := fault.From(err); err == nil || f.Code != CodeServiceInvalid || !cmp.Equal(f.Path, []string{"trustedAddresses"}) {
			t.Errorf("%s: %v", name, err)
		}
	}
	s := trust(t, "10.0.0.1")
	if err := s.Apply(ServiceChange{TrustedAddresses: validate.Of([]string{})}, at); err == nil {
		t.Error("a trusted service lost its addresses and is trusted still")
	}
	if err := s.Apply(ServiceChange{Trusted: validate.Of(false), TrustedAddresses: validate.Of([]string{})}, at); err != nil {
		t.Error(err)
	}
}
