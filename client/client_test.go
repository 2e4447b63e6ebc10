package client_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/backplane-dev/backplane/client"
)

func TestNew_refuses_what_makes_no_sense(t *testing.T) {
	t.Parallel()
	good := client.Config{URLs: []string{"http://127.0.0.1:8080"}, Token: "t"}
	if _, err := client.New(good); err != nil {
		t.Errorf("New(%v) = %v", good, err)
	}
	for _, cfg := range []client.Config{
		{}, {URLs: good.URLs}, {Token: "t"}, {URLs: []string{"127.0.0.1:8080"}, Token: "t"}, {URLs: []string{"http://u:p@h"}, Token: "t"},
		{URLs: good.URLs, Token: "t", Timeout: -1}, {URLs: []string{"http://h?q=1"}, Token: "t"},
	} {
		if _, err := client.New(cfg); err == nil {
			t.Errorf("New takes %v", cfg)
		}
	}
	secret := client.Config{URLs: good.URLs, Token: "very secret"}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s"} {
		if text := fmt.Sprintf(verb, secret); len(text) == 0 || strings.Contains(text, "secret") {
			t.Errorf("%s tells %s", verb, text)
		}
	}
}

func TestNewTransport_refuses_what_makes_no_sense(t *testing.T) {
	t.Parallel()
	for _, cfg := range []client.TransportConfig{{Attempts: -1}, {Budget: -1}, {Burst: -1}} {
		if _, err := client.NewTransport(nil, cfg); err == nil {
			t.Errorf("NewTransport takes %+v", cfg)
		}
	}
}
