package gateway

import (
	"crypto/rand"
	"encoding/hex"
	"net"
	"net/http"
	"net/http/httputil"
	"net/netip"
	"net/url"
	"slices"
	"strings"

	"github.com/backplane-dev/backplane/internal/registry"
	"github.com/backplane-dev/backplane/internal/requestlog"
)

// Headers that the gateway speaks itself.
const (
	// KeyHeader says which calls belong together, for CONSISTENT_HASH.
	KeyHeader = "X-Balance-Key"
	// DegradedHeader says in an answer that what the node knows of the service may not be true, and
	// why, as Service.degraded does.
	DegradedHeader = "X-Backplane-Degraded"
)

// credentials are headers by which a caller could be taken for itself elsewhere.
var credentials = []string{"Authorization", "Cookie", "X-Api-Key", "X-Auth-Token", "X-Graphql-Event-Stream-Token"}

// rewriteRequest makes the headers of a request those that go on. Hop-by-hop headers are gone
// already.
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
	if isTunnel(h.Get("Upgrade")) { // nobody has to take an offer to change the protocol
		h.Del("Upgrade")
		h.Del("Connection")
	}
	h.Del("Expect") // whoever sends the body has been told to go on
	h.Set("Via", joinHeader(pr.In.Header.Values("Via"), viaEntry))
	h.Set("X-Request-Id", requestlog.RequestID(pr.In.Context()))
	setTraceparent(h)
	if !c.set.Service.Trusted {
		for _, name := range credentials {
			delete(h, name)
		}
		if c.token != "" {
			h.Set("Authorization", "Bearer "+c.token)
		}
	}
	pr.Out.Host = ""
	pr.Out.URL.RawQuery = pr.In.URL.RawQuery
	pr.Out.Trailer = nil
}

// isReservedHeader reports whether a header says what only the gateway may say to an instance. To many servers
// X_Forwarded_For is the same as X-Forwarded-For.
func isReservedHeader(name string) bool {
	name = http.CanonicalHeaderKey(strings.ReplaceAll(name, "_", "-"))
	switch name {
	case "Forwarded", "X-Real-Ip", "X-Request-Id":
		return true
	}
	return strings.HasPrefix(name, "X-Forwarded-") || strings.HasPrefix(name, "X-Backplane-")
}

// viaEntry is our entry of the Via header, and how many of it mean that a call goes round in
// circles.
const (
	viaEntry      = "1.1 backplane"
	maxViaEntries = 4
)

// isLoop reports whether the request has come through gateways too often.
func isLoop(r *http.Request) bool {
	return strings.Count(strings.Join(r.Header.Values("Via"), ","), viaEntry) >= maxViaEntries
}

func joinHeader(before []string, last string) string {
	return strings.Join(append(slices.Clip(before), last), ", ")
}

// setForwarded says for whom the request is, and what it asked for: after those who have said so
// before and are believed. Forwarded says the same as X-Forwarded-*; one that came is not read.
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

// forwardedNode writes an address as RFC 7239 has it.
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

// isHost reports whether the text may be the host of a URL, perhaps with a port.
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

// setTraceparent lets the trace of the caller go on or, if there is none, begins one that is to be
// recorded: so the services behind agree about it.
func setTraceparent(h http.Header) {
	if values := h.Values("Traceparent"); len(values) == 1 && isTraceparent(values[0]) {
		return
	}
	h.Del("Tracestate")
	var id [24]byte
	_, _ = rand.Read(id[:]) // documented never to fail
	h.Set("Traceparent", "00-"+hex.EncodeToString(id[:16])+"-"+hex.EncodeToString(id[16:])+"-01")
}

// isTraceparent reports whether the text is a traceparent as W3C Trace Context has it. Those of later
// versions may go on behind what version 00 has.
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

// isStrippedHeader says which headers of an answer an untrusted service must not set, as they would act for
// the whole of our origin, or ask a browser's user for a password in our name. Those of us
// are not theirs to set either.
func isStrippedHeader(name string, trusted bool) bool {
	switch name {
	case "Set-Cookie", "Set-Cookie2", "Strict-Transport-Security", "Public-Key-Pins", "Public-Key-Pins-Report-Only", "Expect-Ct",
		"Clear-Site-Data", "Service-Worker-Allowed", "Alt-Svc", "Nel", "Report-To", "Reporting-Endpoints", "Accept-Ch", "Critical-Ch",
		"Origin-Agent-Cluster", "Refresh", "Set-Login", "Speculation-Rules", "Use-As-Dictionary",
		"X-Content-Type-Options", "X-Frame-Options", "Referrer-Policy", "X-Request-Id":
		return true
	case "Www-Authenticate":
		return !trusted
	}
	return strings.HasPrefix(name, "Access-Control-") || strings.HasPrefix(name, "X-Backplane-")
}

// stripHeaders takes out of an answer's header, or trailer, what must not go on.
func stripHeaders(h http.Header, trusted bool) {
	for name := range h {
		if isStrippedHeader(name, trusted) {
			delete(h, name)
		}
	}
}

// relocateReferences makes references to the service's instances point to the gateway, for they may
// lie where the caller cannot go, and where they are is not the caller's to know. Others
// go on as they are.
func relocateReferences(h http.Header, c *call, base *url.URL) {
	for _, name := range []string{"Location", "Content-Location"} {
		if v := h.Get(name); v != "" {
			h.Set(name, relocateReference(v, Prefix+c.target.service, base, c.set))
		}
	}
}

func relocateReference(ref, prefix string, base *url.URL, set *registry.Set) string {
	u, err := url.Parse(ref)
	if err != nil {
		return ref
	}
	switch {
	case u.Host == "" && u.Scheme == "" && strings.HasPrefix(ref, "/"): // of the instance's own root
	case u.Host == "":
		return ref
	default:
		if base = instanceURL(u, base, set); base == nil {
			return ref
		}
	}
	path := u.EscapedPath()
	if rest, ok := strings.CutPrefix(path, base.EscapedPath()); ok && (rest == "" || rest[0] == '/') {
		path = rest
	}
	u.Scheme, u.Host, u.User = "", "", nil
	out := prefix + "/" + strings.TrimPrefix(path, "/")
	u.Path, u.RawPath = "", ""
	return out + u.String()
}

// instanceURL returns the URL of the instance that the reference points to, nil if it is none
// of the service's.
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
