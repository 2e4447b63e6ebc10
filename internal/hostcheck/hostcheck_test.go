package hostcheck_test

import (
	"testing"

	"github.com/backplane-dev/backplane/internal/hostcheck"
)

func TestHosts_Allows(t *testing.T) {
	t.Parallel()
	h := hostcheck.New("api.internal:8080", []string{"shop.example", "*.tenants.example"})
	for host, want := range map[string]bool{
		"": true, "localhost": true, "localhost:8080": true, "app.localhost": true, "127.0.0.1:8080": true, "[::1]:8080": true, "::1": true, "203.0.113.9": true,
		"api.internal": true, "API.internal:8080": true, "shop.example": true, "shop.example.": true, "shop.example:443": true, "a.tenants.example": true,
		"tenants.example": false, "evil.example": false, "shop.example.evil.example": false, "evilshop.example": false, "127.0.0.1.evil.example": false,
		"localhost.evil.example": false, "a.tenants.example.evil": false, "127.0.0.1.nip.io:8080": false, "*": false,
	} {
		if got := h.Allows(host); got != want {
			t.Errorf("Allows(%q) = %v, want %v", host, got, want)
		}
	}
	if !hostcheck.New(":8080", []string{"*"}).Allows("evil.example") {
		t.Error("* does not allow every name")
	}
	if hostcheck.New(":8080", nil).Allows("evil.example") {
		t.Error("a foreign name is allowed by default")
	}
}
