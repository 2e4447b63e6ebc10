package gateway

import (
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/backplane-dev/backplane/internal/registry"
	"github.com/backplane-dev/backplane/internal/validate"
)

func TestGateway_strips_hop_by_hop_headers(t *testing.T) {
	t.Parallel()
	w := newFixture(t, Config{})
	w.registerEcho(func(rw http.ResponseWriter, r *http.Request) {
		for _, name := range []string{"Keep-Alive", "Proxy-Authenticate", "Upgrade", "X-Hop"} {
			rw.Header().Set(name, "x")
		}
		rw.Header().Set("Connection", "X-Hop")
		echoRequest(rw, r)
	})
	got := w.sendRaw("GET /gateway/echo/", "Connection: X-Mine", "X-Mine: 1", "Keep-Alive: 5", "Proxy-Authorization: Basic x", "TE: gzip", "Upgrade: h2c", "Expect: 100-continue")
	m := got.echoed(t)
	for _, name := range []string{"X-Mine", "Keep-Alive", "Proxy-Authorization", "Te", "Upgrade", "Expect", "Connection"} {
		if v, ok := m.Header[name]; ok {
			t.Errorf("the service got %s: %q", name, v)
		}
	}
	for _, name := range []string{"Keep-Alive", "Proxy-Authenticate", "Upgrade", "X-Hop"} {
		if v, ok := got.header[name]; ok {
			t.Errorf("the caller got %s: %q", name, v)
		}
	}
	if m.Header.Get("Via") != "1.1 backplane" || got.header.Get("Via") != "1.1 backplane" {
		t.Errorf("Via is %q there and %q back", m.Header.Get("Via"), got.header.Get("Via"))
	}
	if got := w.get("/gateway/echo/", "Via", "1.1 backplane, 1.1 x", "Via", "1.1 backplane, 1.1 backplane, 1.1 backplane"); got.status != http.StatusLoopDetected {
		t.Errorf("a call that loops gave %d", got.status)
	}
}

func TestGateway_strips_response_headers_that_act_for_the_origin(t *testing.T) {
	t.Parallel()
	dangerous := http.Header{
		"Set-Cookie": {"a=b"}, "Strict-Transport-Security": {"max-age=1"}, "Clear-Site-Data": {`"*"`}, "Access-Control-Allow-Origin": {"*"},
		"Access-Control-Allow-Credentials": {"true"}, "Service-Worker-Allowed": {"/"}, "Alt-Svc": {`h3="evil.example:443"`}, "Www-Authenticate": {"Basic"},
		"Refresh": {"0; url=/"}, "Report-To": {"{}"}, "Nel": {"{}"}, "X-Backplane-Degraded": {"STALE"}, "X-Request-Id": {"theirs"}, "X-Frame-Options": {"ALLOWALL"},
		"X-Content-Type-Options": {"sniff"}, "X-Accel-Redirect": {"/internal"}, "X-Sendfile": {"/etc/passwd"}, "Proxy-Authenticate": {"Basic"},
	}
	w := newFixture(t, Config{})
	h := func(rw http.ResponseWriter, _ *http.Request) {
		maps.Copy(rw.Header(), dangerous)
		rw.Header().Set("Trailer", "Set-Cookie")
		rw.Header().Set("Etag", `"1"`)
		rw.Header().Set("Content-Security-Policy", "sandbox allow-scripts")
		rw.WriteHeader(http.StatusUnauthorized)
		fmt.Fprint(rw, "x")
		rw.Header().Set("Set-Cookie", "late=1")
		rw.Header().Set(http.TrailerPrefix+"Clear-Site-Data", "late")
		rw.Header().Set(http.TrailerPrefix+"X-Sum", "7")
	}
	w.registerEcho(h)
	w.registerService(registry.ServiceInput{Name: "ours"}, trustedService(), startServer(t, h))
	for service, challenge := range map[string]string{"echo": "", "ours": "Basic"} {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, w.front.URL+"/gateway/"+service+"/", nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := client.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.Copy(io.Discard, resp.Body)
		resp.Body.Close()
		for name := range dangerous {
			want := map[string]string{"Www-Authenticate": challenge, "X-Content-Type-Options": "nosniff"}[name]
			if got := strings.Join(resp.Header[name], ","); got != want {
				t.Errorf("%s: the caller got %s: %q, want %q", service, name, got, want)
			}
		}
		if csp := resp.Header.Values("Content-Security-Policy"); len(csp) != 2 || csp[0] != "sandbox" || resp.Header.Get("Etag") != `"1"` {
			t.Errorf("%s: the caller got %v", service, resp.Header)
		}
		if _, announced := resp.Trailer["Set-Cookie"]; announced {
			t.Errorf("%s: the caller is announced a trailer that does not come", service)
		}
		if len(resp.Trailer["Set-Cookie"])+len(resp.Trailer["Clear-Site-Data"]) != 0 {
			t.Errorf("%s: the caller got the trailer %v", service, resp.Trailer)
		}
	}
}

func TestGateway_adds_no_content_type(t *testing.T) {
	t.Parallel()
	w := newFixture(t, Config{})
	w.registerEcho(func(rw http.ResponseWriter, _ *http.Request) {
		rw.Header()["Content-Type"] = nil
		fmt.Fprint(rw, "<html>")
	})
	resp, err := client.Get(w.front.URL + "/gateway/echo/")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if got, ok := resp.Header["Content-Type"]; ok {
		t.Errorf("an answer without Content-Type reaches the caller with %q", got)
	}
}

func TestGateway_relocates_references_to_instances(t *testing.T) {
	t.Parallel()
	w := newFixture(t, Config{})
	s := startServer(t, func(rw http.ResponseWriter, r *http.Request) {
		rw.Header().Set("Location", r.URL.Query().Get("to"))
		rw.WriteHeader(http.StatusFound)
	})
	other := "http://10.9.8.7:8080"
	w.registerService(registry.ServiceInput{Name: "echo"}, registry.ServiceChange{}, s+"/base")
	i := w.registerInstance("echo", other)
	i.Weight = 0 // never picked
	for to, want := range map[string]string{
		"/base/a?b#c": "/gateway/echo/a?b#c", "/a": "/gateway/echo/a", "a/b": "a/b", "?x=1": "?x=1", s + "/base/x%2Fy": "/gateway/echo/x%2Fy",
		s + "/base": "/gateway/echo/", s + "/basement": "/gateway/echo/basement",
		strings.TrimPrefix(s, "http:") + "/base/q": "/gateway/echo/q", "/base//evil.example": "/gateway/echo//evil.example", "": "",
	} {
		var got string
		for range 20 {
			if r := w.get("/gateway/echo/?to=" + url.QueryEscape(to)); r.status == http.StatusFound {
				got = r.header.Get("Location")
				break
			}
		}
		if got != want {
			t.Errorf("a redirect to %s became one to %s, want %s", to, got, want)
		}
	}
}

func TestGateway_drops_references_to_elsewhere_from_untrusted_services(t *testing.T) {
	t.Parallel()
	w := newFixture(t, Config{})
	s := startServer(t, func(rw http.ResponseWriter, r *http.Request) {
		to := r.URL.Query().Get("to")
		h := rw.Header()
		h["Location"], h["Content-Location"] = []string{to}, []string{to}
		h["Link"] = []string{"<" + to + ">; rel=next, <mine>; rel=prev", "</base/also>; rel=self"}
		rw.WriteHeader(http.StatusFound)
	})
	w.registerService(registry.ServiceInput{Name: "echo"}, registry.ServiceChange{}, s+"/base")
	w.registerService(registry.ServiceInput{Name: "ours"}, trustedService(), s+"/base")
	for _, elsewhere := range []string{
		"https://elsewhere.example/x", "//elsewhere.example/x", "http:elsewhere.example", "javascript:alert(1)", "data:text/html,x", `\\elsewhere.example`, `a\..\..\users`,
		"../../users", "a/../../../users", "%2e%2e/%2e%2e/users", ".%2E/../users", "/base/../../../users", "/../../users", "..%2f..%2fusers", "%zz",
	} {
		got := w.get("/gateway/echo/?to=" + url.QueryEscape(elsewhere)).header
		if got.Get("Location") != "" || got.Get("Content-Location") != "" || strings.Join(got["Link"], " | ") != "</gateway/echo/also>; rel=self" {
			t.Errorf("a reference to %s reached the caller: %v", elsewhere, got)
		}
	}
	for to, want := range map[string]string{"https://elsewhere.example/x": "https://elsewhere.example/x", "/base/a": "/gateway/ours/a"} {
		got := w.get("/gateway/ours/?to=" + url.QueryEscape(to)).header
		if got.Get("Location") != want || got.Get("Content-Location") != want || got.Get("Link") != "<"+want+">; rel=next, <mine>; rel=prev" {
			t.Errorf("a trusted service's reference to %s became %v, want %s", to, got, want)
		}
	}
	got := w.get("/gateway/echo/?to=" + url.QueryEscape(s+"/base/page?n=2")).header
	if got.Get("Link") != "</gateway/echo/page?n=2>; rel=next, <mine>; rel=prev" {
		t.Errorf("links to the instance became %v", got["Link"])
	}
}

func TestGateway_strips_reserved_headers_spelled_with_underscores(t *testing.T) {
	t.Parallel()
	w := newFixture(t, Config{})
	w.registerEcho(echoRequest)
	got := w.sendRaw("GET /gateway/echo/", "X_Forwarded_For: 6.6.6.6", "x_forwarded-proto: https", "X_Real_IP: 6.6.6.6", "X_Request_ID: 1", "X-Backplane_Degraded: 1", "X_Mine: 1").echoed(t)
	for name := range got.Header {
		if strings.Contains(name, "_") && name != "X_mine" {
			t.Errorf("the header %s was forwarded", name)
		}
	}
	if got.Header.Get("X_mine") != "1" {
		t.Error("an unreserved header was not forwarded")
	}
}

func TestGateway_sends_a_service_token_and_the_services_own_credentials_only_to_trusted_instances(t *testing.T) {
	t.Parallel()
	w := newFixture(t, Config{})
	s := startServer(t, echoRequest)
	w.registerService(registry.ServiceInput{Name: "echo"}, registry.ServiceChange{}, s)
	w.registerService(registry.ServiceInput{Name: "ours"}, trustedService(), s)
	w.registerService(registry.ServiceInput{Name: "open"}, publicService(), s)
	elsewhere := trustedService()
	elsewhere.TrustedAddresses = validate.Of([]string{"127.0.0.2", "http://localhost"})
	w.registerService(registry.ServiceInput{Name: "forged"}, elsewhere, s)
	both := trustedService()
	both.Public = validate.Of(true)
	w.registerService(registry.ServiceInput{Name: "shared"}, both, s)
	sent := []string{"Authorization", "Bearer mine", "Cookie", "c=1", "X-Api-Key", "k"}
	if h := w.get("/gateway/echo/", sent...).echoed(t).Header; h.Get("Authorization") != "Bearer for-echo-of-usr_ada" || h.Get("Cookie")+h.Get("X-Api-Key") != "" {
		t.Errorf("an untrusted service got %v", h)
	}
	if h := w.get("/gateway/ours/", sent...).echoed(t).Header; h.Get("Authorization") != "Bearer for-ours-of-usr_ada" || h.Get("Cookie") != "c=1" || h.Get("X-Api-Key") != "k" {
		t.Errorf("a trusted service got %v", h)
	}
	if h := w.get("/gateway/forged/", sent...).echoed(t).Header; h.Get("Authorization")+h.Get("Cookie")+h.Get("X-Api-Key") != "" {
		t.Errorf("an instance elsewhere of a trusted service got %v", h)
	}
	w.setCaller(nil)
	for sent, want := range map[string]string{"Basic dXNlcjpw": "Basic dXNlcjpw", "Bearer mine": "", " bearer mine": ""} {
		if h := w.get("/gateway/shared/", "Authorization", sent).echoed(t).Header; h.Get("Authorization") != want {
			t.Errorf("from an anonymous caller with %q a trusted service got %v", sent, h)
		}
	}
	if h := w.get("/gateway/open/", sent...).echoed(t).Header; h.Get("Authorization")+h.Get("Cookie") != "" {
		t.Errorf("from an anonymous caller a public service got %v", h)
	}
	if got := w.get("/gateway/echo/", sent...); got.status != http.StatusUnauthorized {
		t.Errorf("an anonymous caller called a service that is not public: %d", got.status)
	}
}

func TestGateway_continues_traces(t *testing.T) {
	t.Parallel()
	w := newFixture(t, Config{})
	w.registerEcho(echoRequest)
	const good = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00"
	h := w.get("/gateway/echo/", "Traceparent", good, "Tracestate", "a=1").echoed(t).Header
	if h.Get("Traceparent") != good || h.Get("Tracestate") != "a=1" || h.Get("X-Request-Id") != "req-1" {
		t.Errorf("a trace was forwarded as %v", h)
	}
	for _, bad := range []string{"", "x", strings.Replace(good, "0a", "0A", 1), "ff" + good[2:], good + "-x", "00-" + strings.Repeat("0", 32) + good[35:], good[:54] + "é"} {
		header := []string{"Tracestate", "a=1"}
		if bad != "" {
			header = append(header, "Traceparent", bad)
		}
		h := w.get("/gateway/echo/", header...).echoed(t).Header
		if got := h.Get("Traceparent"); !isTraceparent(got) || got == bad || !strings.HasSuffix(got, "-00") || h.Get("Tracestate") != "" {
			t.Errorf("with %q the service got %v", bad, h)
		}
	}
}

func TestGateway_strips_headers_by_which_proxies_name_the_caller(t *testing.T) {
	t.Parallel()
	w := newFixture(t, Config{})
	w.registerEcho(echoRequest)
	forged := []string{
		"Remote-User", "Remote_User", "X-Forwarded-User", "X-Forwarded-Email", "X-Remote-User", "X-Authenticated-User", "X-WEBAUTH-USER", "X-Original-URL", "X-Rewrite-URL",
		"CF-Connecting-IP", "CF-Access-Authenticated-User-Email", "True-Client-IP", "X-Client-IP", "X-Auth-Request-User", "X-Amzn-Oidc-Identity", "X-HTTP-Method-Override",
		"X-Goog-Authenticated-User-Email", "X-MS-Client-Principal-Name", "X-SSL-Client-Cert", "X-SSL-Client-Verify", "SSL-Client-S-DN", "X-Client-DN", "SM_USER", "OIDC_CLAIM_sub",
		"X-Authenticated-Userid", "X-Consumer-Username", "X-Pomerium-Claim-Email", "X-authentik-username", "X-Vouch-User", "Tailscale-User-Login", "X-Userinfo",
	}
	var lines []string
	for _, name := range forged {
		lines = append(lines, name+": forged")
	}
	for name, values := range w.sendRaw("GET /gateway/echo/", lines...).echoed(t).Header {
		for _, v := range values {
			if v == "forged" {
				t.Errorf("the header %s was forwarded", name)
			}
		}
	}
}
