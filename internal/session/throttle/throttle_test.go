package throttle

import "testing"

func TestNetwork_is_the_address_or_of_IPv6_the_64(t *testing.T) {
	t.Parallel()
	for address, want := range map[string]string{
		"192.0.2.1": "192.0.2.1", "::ffff:192.0.2.1": "192.0.2.1", "2001:db8:1:2:3:4:5:6": "2001:db8:1:2::/64",
		"fe80::1%eth0": "fe80::/64", "": "", "pipe": "pipe",
	} {
		if got := networkOf(address); got != want {
			t.Errorf("network(%q) = %q, want %q", address, got, want)
		}
	}
}
