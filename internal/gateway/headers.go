package gateway

import (
	"crypto/rand"
	"encoding/hex"
	"net"
	"net/http"
	"net/http/httputil"
	"net/netip"
	"net/url"
	"path"
	"regexp"
	"slices"
	"strings"

	"github.com/backplane-dev/backplane/internal/registry"
	"github.com/backplane-dev/backplane/internal/requestlog"
)

// Headers of the gateway's own.
const (
	// KeyHeader of a request is the hash key for CONSISTENT_HASH.
	KeyHeader = "X-Balance-Key"
	// DegradedHeader of a response says that the node's data about the service may be stale, and why, as
	// Service.degraded does.
	DegradedHeader = "X-Backplane-Degraded"
)

// credentials are headers that another server could use to act as the caller. An instance that is trusted
// receives those that callers have for its service; a stream token is for this server alone.
var (
	serviceCredentials = []string{"Cookie", "X-Api-Key", "X-Auth-Token"}
	credentials        = append([]string{"Authorization", "X-Graphql-Event-Stream-Token"}, serviceCredentials...)
)

// rewriteRequest sets the headers of the forwarded request. The reverse proxy has removed hop-by-hop
// headers already.
func rewriteRequest(pr *httputil.ProxyRequest) {
	c := callOf(pr.In.Context())
	h := pr.Out.Header
	for name := range h {
		if isReservedHeader(name) {
			delete(h, name)
		}
	}
	setForwarded(h, pr.In, Prefix+c.target.service)
	h.Del("Http2-Settings")
	if isTunnel(h.Get("Upgrade")) { // a server may ignore an offer to change the protocol
		h.Del("Upgrade")
		h.Del("Connection")
	}
	h.Del("Expect") // the HTTP server has answered it already
	h.Set("Via", joinHeader(pr.In.Header.Values("Via"), viaEntry))
	h.Set("X-Request-Id", requestlog.RequestID(pr.In.Context()))
	setTraceparent(h)
	c.withholdCredentials(h)
	pr.Out.Host = ""
	pr.Out.URL.RawQuery = pr.In.URL.RawQuery
	pr.Out.Trailer = nil
}

// withholdCredentials moves the credentials from the forwarded header to the call: which of them an instance
// receives is known when it is picked.
func (c *call) withholdCredentials(h http.Header) {
	c.withheld = http.Header{}
	for _, name := range credentials {
		if values, ok := h[name]; ok {
			c.withheld[name] = values
			delete(h, name)
		}
	}
}

// credentialsFor returns the credentials that the instance of the attempt receives. The caller's own token is
// never among them: in its place is one for this service alone. An instance of a trusted service at an
// address that ADMIN has not named receives none, since an API key may have registered it.
func (a *attempt) credentialsFor() http.Header {
	c, h := a.call, http.Header{}
	if a.trusted {
		for _, name := range serviceCredentials {
			if values, ok := c.withheld[name]; ok {
				h[name] = values
			}
		}
		if values := c.withheld["Authorization"]; c.token == "" && len(values) == 1 && !isBearer(values[0]) {
			h["Authorization"] = values // of another scheme, which this server does not accept
		}
	}
	if c.token != "" && c.set.Service.NamesCallersTo(a.instance.URL) {
		h.Set("Authorization", "Bearer "+c.token)
	}
	return h
}

func isBearer(credential string) bool {
	scheme, _, _ := strings.Cut(strings.TrimSpace(credential), " ")
	return strings.EqualFold(scheme, "Bearer")
}

// isReservedHeader reports whether only the gateway may send the header to an instance. Many servers take
// X_Forwarded_For for X-Forwarded-For.
func isReservedHeader(name string) bool {
	name = http.CanonicalHeaderKey(strings.ReplaceAll(name, "_", "-"))
	return slices.Contains(reservedHeaders, name) || slices.ContainsFunc(reservedPrefixes, func(p string) bool { return strings.HasPrefix(name, p) })
}

// Headers by which proxies tell servers behind them who the caller is, where it comes from or what it
// asked for: a caller must not be able to say so itself.
var (
	reservedHeaders = []string{
		"Forwarded", "X-Request-Id",
		"X-Real-Ip", "X-Client-Ip", "Client-Ip", "X-Cluster-Client-Ip", "X-Originating-Ip", "X-Remote-Ip", "X-Remote-Addr", "True-Client-Ip", "Fastly-Client-Ip",
		"Remote-User", "Remote-Groups", "Remote-Email", "Remote-Name", "X-Remote-User", "X-Remote-Group", "X-User", "X-Webauth-User", "X-Client-Cert", "X-Client-Dn", "Sm-User", "X-Userinfo",
		"X-Original-Url", "X-Original-Uri", "X-Rewrite-Url", "X-Original-Host", "X-Http-Method-Override", "X-Http-Method", "X-Method-Override",
	}
	reservedPrefixes = []string{"X-Forwarded-", "X-Backplane-", "Cf-", "X-Auth-Request-", "X-Amzn-Oidc-", "X-Goog-Authenticated-User-", "X-Ms-Client-Principal", "X-Envoy-",
		"X-Authenticated-", "X-Consumer-", "X-Pomerium-", "X-Authentik-", "X-Vouch-", "Tailscale-", "Oidc-Claim-", "X-Ssl-Client-", "Ssl-Client-"}
)

// viaEntry is the gateway's entry in the Via header; a request with maxViaEntries of them loops.
const (
	viaEntry      = "1.1 backplane"
	maxViaEntries = 4
)

// isLoop reports whether the request has passed gateways too often.
func isLoop(r *http.Request) bool {
	return strings.Count(strings.Join(r.Header.Values("Via"), ","), viaEntry) >= maxViaEntries
}

func joinHeader(before []string, last string) string {
	return strings.Join(append(slices.Clip(before), last), ", ")
}

// setForwarded sets X-Forwarded-* and Forwarded: the client, the trusted proxies before this server, and
// the host and scheme that the client asked for. An incoming Forwarded is not read.
func setForwarded(h http.Header, r *http.Request, prefix string) {
	peer, _, _ := net.SplitHostPort(r.RemoteAddr)
	chain := joinHeader(r.Header.Values("X-Forwarded-For"), peer)
	proto := r.Header.Get("X-Forwarded-Proto")
	if proto != "http" && proto != "https" {
		proto = "http"
		if r.TLS != nil {
			proto = "https"
		}
	}
	host := r.Header.Get("X-Forwarded-Host")
	if !isHost(host) {
		host = r.Host
	}
	h.Set("X-Forwarded-For", chain)
	h.Set("X-Forwarded-Proto", proto)
	h.Set("X-Forwarded-Host", host)
	h.Set("X-Forwarded-Prefix", prefix)
	client, proxies, more := strings.Cut(chain, ",")
	forwarded := []string{"for=" + forwardedNode(client) + ";host=" + quoteValue(host) + ";proto=" + proto}
	for more {
		var proxy string
		proxy, proxies, more = strings.Cut(proxies, ",")
		forwarded = append(forwarded, "for="+forwardedNode(proxy))
	}
	h.Set("Forwarded", strings.Join(forwarded, ", "))
}

// forwardedNode formats an address as a node of RFC 7239.
func forwardedNode(ip string) string {
	addr, err := netip.ParseAddr(strings.TrimSpace(ip))
	switch {
	case err != nil:
		return "unknown"
	case addr.Unmap().Is4():
		return addr.Unmap().String()
	}
	return `"[` + addr.WithZone("").String() + `]"`
}

// isHost reports whether the text can be the host of a URL, with an optional port.
func isHost(s string) bool {
	if s == "" || len(s) > 255 || strings.ContainsFunc(s, func(r rune) bool { return !isTokenRune(r) && !strings.ContainsRune("[]:", r) }) {
		return false
	}
	u, err := url.Parse("http://" + s)
	return err == nil && u.Host == s && u.Hostname() != ""
}

func isTokenRune(r rune) bool {
	return 'a' <= r && r <= 'z' || 'A' <= r && r <= 'Z' || '0' <= r && r <= '9' || strings.ContainsRune("!#$%&'*+-.^_`|~", r)
}

func isToken(s string) bool {
	return s != "" && !strings.ContainsFunc(s, func(r rune) bool { return !isTokenRune(r) })
}

func quoteValue(s string) string {
	if isToken(s) {
		return s
	}
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(s) + `"`
}

// setTraceparent continues the caller's trace or, if it sent none, begins one: attempts at several instances, and
// services behind them, log the same id. The flag sampled is not set, as the gateway records no span.
func setTraceparent(h http.Header) {
	if values := h.Values("Traceparent"); len(values) == 1 && isTraceparent(values[0]) {
		return
	}
	h.Del("Tracestate")
	var id [24]byte
	_, _ = rand.Read(id[:]) // documented never to fail
	h.Set("Traceparent", "00-"+hex.EncodeToString(id[:16])+"-"+hex.EncodeToString(id[16:])+"-00")
}

// isTraceparent reports whether the text is a traceparent of W3C Trace Context. A later version may have
// more fields than version 00.
func isTraceparent(s string) bool {
	const length = 55
	if len(s) < length || len(s) > length && (s[:2] == "00" || s[length] != '-') {
		return false
	}
	version, id, parent, flags := s[:2], s[3:35], s[36:52], s[53:55]
	return s[2] == '-' && s[35] == '-' && s[52] == '-' && isHex(version) && isHex(id) && isHex(parent) && isHex(flags) &&
		version != "ff" && strings.Trim(id, "0") != "" && strings.Trim(parent, "0") != ""
}

func isHex(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool { return (r < '0' || r > '9') && (r < 'a' || r > 'f') })
}

// isStrippedHeader reports whether a header of a response stops at the gateway: those that would act for
// the server's whole origin, or tell a proxy before it what to send instead, those that the server sets itself and, unless the service is trusted, the
// one that makes a browser ask for a password in the server's name.
func isStrippedHeader(name string, trusted bool) bool {
	switch name {
	case "Set-Cookie", "Set-Cookie2", "Strict-Transport-Security", "Public-Key-Pins", "Public-Key-Pins-Report-Only", "Expect-Ct",
		"Clear-Site-Data", "Service-Worker-Allowed", "Alt-Svc", "Nel", "Report-To", "Reporting-Endpoints", "Accept-Ch", "Critical-Ch",
		"Origin-Agent-Cluster", "Refresh", "Set-Login", "Speculation-Rules", "Use-As-Dictionary",
		"X-Content-Type-Options", "X-Frame-Options", "Referrer-Policy", "X-Request-Id",
		"X-Accel-Redirect", "X-Sendfile", "X-Lighttpd-Send-File", "X-Reproxy-Url", "Proxy-Authenticate":
		return true
	case "Www-Authenticate":
		return !trusted
	}
	return strings.HasPrefix(name, "Access-Control-") || strings.HasPrefix(name, "X-Backplane-")
}

// stripHeaders removes from a response's header or trailer what must not be forwarded.
func stripHeaders(h http.Header, trusted bool) {
	for name := range h {
		if isStrippedHeader(name, trusted) {
			delete(h, name)
		}
	}
}

// referenceHeaders hold one reference each; Link holds a list of them in angle brackets.
var (
	referenceHeaders = []string{"Location", "Content-Location"}
	linkTarget       = regexp.MustCompile(`<[^>]*>`)
	encodedDots      = strings.NewReplacer("%2e", ".", "%2E", ".")
)

// relocateReferences rewrites references to the service's instances to the gateway: the caller may not
// reach instances, and must not learn their addresses. References to elsewhere are removed, unless the
// instance is trusted: a service could send callers of the server's origin to a page of its own, or to another path of
// the server.
func relocateReferences(h http.Header, c *call, base *url.URL, trusted bool) {
	relocate := func(ref string) (_ string, ok bool) {
		ref = relocateReference(ref, Prefix+c.target.service, base, c.set)
		return ref, trusted || c.staysInService(ref)
	}
	for _, name := range referenceHeaders {
		if v := h.Get(name); v != "" {
			if ref, ok := relocate(v); ok {
				h.Set(name, ref)
			} else {
				h.Del(name)
			}
		}
	}
	var links []string
	for _, v := range h["Link"] {
		stays := true
		v = linkTarget.ReplaceAllStringFunc(v, func(target string) string {
			ref, ok := relocate(target[1 : len(target)-1])
			stays = stays && ok
			return "<" + ref + ">"
		})
		if stays {
			links = append(links, v)
		}
	}
	if h.Del("Link"); len(links) > 0 {
		h["Link"] = links
	}
}

// staysInService reports whether a client that resolves the reference stays below the path of the service. Clients take a
// backslash for a slash, and %2e for a dot.
func (c *call) staysInService(ref string) bool {
	u, err := url.Parse(encodedDots.Replace(ref))
	if err != nil || u.Scheme != "" || u.Host != "" || u.User != nil || strings.Contains(ref, `\`) || strings.HasPrefix(ref, "//") {
		return false
	}
	to := path.Clean(c.request.URL.ResolveReference(u).Path)
	service := Prefix + c.target.service
	return to == service || strings.HasPrefix(to, service+"/")
}

func relocateReference(ref, prefix string, base *url.URL, set *registry.Set) string {
	u, err := url.Parse(ref)
	if err != nil {
		return ref
	}
	switch {
	case u.Host == "" && u.Scheme == "" && strings.HasPrefix(ref, "/"): // relative to the instance's root
	case u.Host == "":
		return ref
	default:
		if base = instanceURL(u, base, set); base == nil {
			return ref
		}
	}
	to := u.EscapedPath()
	if rest, ok := strings.CutPrefix(to, base.EscapedPath()); ok && (rest == "" || rest[0] == '/') {
		to = rest
	}
	u.Scheme, u.Host, u.User = "", "", nil
	out := prefix + "/" + strings.TrimPrefix(to, "/")
	u.Path, u.RawPath = "", ""
	return out + u.String()
}

// instanceURL returns the URL of the service's instance that the reference points to, nil if there is
// none.
func instanceURL(u, base *url.URL, set *registry.Set) *url.URL {
	same := func(b *url.URL) bool {
		return strings.EqualFold(u.Host, b.Host) && (u.Scheme == "" || u.Scheme == b.Scheme)
	}
	if same(base) {
		return base
	}
	for _, i := range set.Instances {
		if strings.Contains(i.URL, u.Host) {
			if b, err := url.Parse(i.URL); err == nil && same(b) {
				return b
			}
		}
	}
	return nil
}
