package cli

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"github.com/backplane-dev/backplane/internal/app"
	"github.com/backplane-dev/backplane/internal/config"
	"github.com/backplane-dev/backplane/internal/session/password"
)

// finding is what a check says of the configuration or the data.
type finding struct {
	warning bool   // may be intended: it is said, and is no problem
	text    string // what is wrong, why, and what to do
}

func problem(format string, args ...any) []finding {
	return []finding{{false, fmt.Sprintf(format, args...)}}
}

func warning(format string, args ...any) []finding {
	return []finding{{true, fmt.Sprintf(format, args...)}}
}

// exposure is from where an address can be reached.
type exposure int

const (
	exposedToMachine exposure = iota // loopback, or a socket of the file system
	exposedToNetwork                 // private networks, and names without a dot, as containers have
	exposedToWorld
)

// machine is what the checks of settings ask the machine.
type machine struct {
	addresses func() ([]net.Addr, error)
	getenv    func(string) string
}

// settingChecks find settings that are unsafe, each for one setting. Those of docs/security.md, "What
// operators must set", are among them.
var settingChecks = map[string]func(machine, config.Config) []finding{
	"RATE_LIMIT":        checkRateLimit,
	"TRUSTED_PROXIES":   checkTrustedProxies,
	"TRUSTED_NETWORKS":  checkTrustedNetworks,
	"LISTEN":            checkListen,
	"ADMIN_LISTEN":      checkAdminListen,
	"DOCS":              checkDocs,
	"INTROSPECTION":     checkIntrospection,
	"OUTBOUND_NETWORKS": checkOutboundNetworks,
	"ALLOWED_HOSTS":     checkAllowedHosts,
	"CORS_ORIGINS":      checkOrigins,
	"ADMIN_PASSWORD":    checkAdminPassword,
	"DATABASE_URL":      checkDatabaseURL,
	"REDIS_URL":         checkRedisURL,
	"SINKS":             checkSinkURLs,
}

// checkSettings runs all checks of settings, in the order of their names.
func checkSettings(_ context.Context, env app.Env, _ *app.Toolbox) ([]finding, error) {
	return unsafeSettings(machine{net.InterfaceAddrs, os.Getenv}, env.Config), nil
}

func unsafeSettings(m machine, c config.Config) (findings []finding) {
	names := make([]string, 0, len(settingChecks))
	for name := range settingChecks {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		findings = append(findings, settingChecks[name](m, c)...)
	}
	return findings
}

func checkRateLimit(_ machine, c config.Config) []finding {
	if c.RateLimit {
		return nil
	}
	return warning("BACKPLANE_RATE_LIMIT is off: clients may guess passwords, try names and write data as fast as they can. Set it to on, unless this is a test or a benchmark.")
}

func checkTrustedProxies(_ machine, c config.Config) (findings []finding) {
	for _, p := range c.HTTP.TrustedProxies {
		if isWide(p) {
			findings = append(findings, problem("BACKPLANE_TRUSTED_PROXIES has %s: clients of the internet could state any address in X-Forwarded-For, and so have no limit and be in any trusted network. "+
				"Set it to the addresses of the proxies.", p)...)
		}
	}
	return findings
}

func checkTrustedNetworks(_ machine, c config.Config) (findings []finding) {
	for _, n := range c.HTTP.TrustedNetworks {
		if isWide(n.Prefix) {
			findings = append(findings, problem("BACKPLANE_TRUSTED_NETWORKS has %s: clients of the internet may call the legacy REST routes without a credential. Set it to the networks of the legacy clients.", n.Prefix)...)
		}
	}
	return findings
}

// isWide reports whether the network is too wide to be one of the operator's own.
func isWide(p netip.Prefix) bool {
	if p.Addr().Is4() {
		return p.Bits() < 8
	}
	return p.Bits() < 16
}

func checkListen(m machine, c config.Config) []finding {
	if len(c.HTTP.TrustedProxies) > 0 {
		return nil
	}
	const format = "BACKPLANE_LISTEN is %s, and no proxy is in BACKPLANE_TRUSTED_PROXIES: passwords and tokens pass over plain HTTP. " +
		"Terminate TLS in a proxy, name the proxy in BACKPLANE_TRUSTED_PROXIES, and listen on an address that only the proxy reaches."
	switch m.exposureOfListener(c.Listen) {
	case exposedToMachine:
		return nil
	case exposedToNetwork:
		return warning(format, c.Listen)
	case exposedToWorld:
	}
	return problem(format, c.Listen)
}

func checkAdminListen(m machine, c config.Config) []finding {
	if c.AdminListen == config.Off {
		return nil
	}
	const format = "BACKPLANE_ADMIN_LISTEN is %s: metrics and profiles, which hold data of users, need no credential there. Set it to a loopback or private address, or to off."
	switch m.exposureOfListener(c.AdminListen) {
	case exposedToMachine:
		return nil
	case exposedToNetwork:
		return warning(format, c.AdminListen)
	case exposedToWorld:
	}
	return problem(format, c.AdminListen)
}

func checkDocs(m machine, c config.Config) []finding {
	if c.HTTP.HideDocs || m.exposureOfListener(c.Listen) != exposedToWorld {
		return nil
	}
	return warning("BACKPLANE_DOCS is on at the public address %s: GraphiQL and the pages of the REST routes are for everyone. Set it to off, unless the API is public.", c.Listen)
}

func checkIntrospection(m machine, c config.Config) []finding {
	if !c.Introspection || m.exposureOfListener(c.Listen) != exposedToWorld {
		return nil
	}
	return warning("BACKPLANE_INTROSPECTION is on at the public address %s: the schema is for everyone. Set it to off, unless the API is public.", c.Listen)
}

func checkOutboundNetworks(m machine, c config.Config) []finding {
	_, embedded := c.Database.SQLite()
	all := len(c.OutboundNetworks) == 0 && embedded || slices.ContainsFunc(c.OutboundNetworks, isWide)
	if !all || m.exposureOfListener(c.Listen) == exposedToMachine {
		return nil
	}
	return warning("BACKPLANE_OUTBOUND_NETWORKS lets services be called at all private addresses, and %s can be reached from elsewhere: an owner of a service can reach what else is in these networks. "+
		"Set it to the networks of the services.", c.Listen)
}

func checkAllowedHosts(_ machine, c config.Config) []finding {
	if !slices.Contains(c.HTTP.AllowedHosts, "*") {
		return nil
	}
	const format = "BACKPLANE_ALLOWED_HOSTS is *: a page can reach this server from a browser under a name of its own (DNS rebinding)%s. Set it to the names that clients use."
	if len(c.HTTP.TrustedNetworks) > 0 {
		return problem(format, ", and act in a trusted network without a credential")
	}
	return warning(format, "")
}

func checkOrigins(_ machine, c config.Config) []finding {
	if !slices.Contains(c.HTTP.AllowedOrigins, "*") || len(c.HTTP.TrustedNetworks) == 0 {
		return nil
	}
	return problem("BACKPLANE_CORS_ORIGINS is *, and there are BACKPLANE_TRUSTED_NETWORKS: any page that is open in a browser of such a network may act without a credential. Set it to the origins of your pages.")
}

func checkAdminPassword(_ machine, c config.Config) []finding {
	if c.AdminPassword == "" {
		return nil
	}
	if err := password.CheckNew(string(c.AdminPassword), c.AdminUsername); err != nil {
		return problem("BACKPLANE_ADMIN_PASSWORD is among the first that an attacker tries, or too short. Set another one, and change the password of the account if it exists.")
	}
	return nil
}

func checkDatabaseURL(m machine, c config.Config) []finding {
	if path, embedded := c.Database.SQLite(); embedded {
		return checkFolder(filepath.Dir(path))
	}
	u, err := url.Parse(string(c.Database))
	if err != nil {
		return nil // parseDatabase has parsed it
	}
	host := u.Hostname()
	if named := u.Query().Get("host"); named != "" {
		host = named
	}
	mode := u.Query().Get("sslmode")
	if mode == "" {
		mode = m.getenv("PGSSLMODE")
	}
	if mode != "" && mode != "disable" && mode != "allow" && mode != "prefer" {
		return nil
	}
	return withoutTLS(host, "BACKPLANE_DATABASE_URL", "data and password hashes pass", "Add sslmode=verify-full, or at least sslmode=require.")
}

// checkFolder finds a folder of the database in which others may replace its files. The server itself
// refuses to start when others may read the database or the key.
func checkFolder(dir string) []finding {
	info, err := os.Stat(dir)
	if err != nil || runtime.GOOS == "windows" || info.Mode().Perm()&0o002 == 0 || info.Mode()&os.ModeSticky != 0 {
		return nil
	}
	return problem("BACKPLANE_DATABASE_URL: others may write to the folder %s (mode %04o), and so replace the database and its key. Run `chmod o-w %s`.", dir, info.Mode().Perm(), dir)
}

func checkRedisURL(_ machine, c config.Config) []finding {
	return checkBroker("BACKPLANE_REDIS_URL", string(c.RedisURL))
}

func checkSinkURLs(_ machine, c config.Config) (findings []finding) {
	for _, s := range c.Sinks {
		findings = append(findings, checkBroker("BACKPLANE_SINKS ("+s.Name+")", string(s.URL))...)
	}
	return findings
}

// checkBroker finds a broker on another machine without a credential or TLS.
func checkBroker(setting, text string) (findings []finding) {
	u, err := url.Parse(text)
	if err != nil || u.Host == "" || exposureOfHost(u.Hostname()) == exposedToMachine {
		return nil // parseSink and parseRedisURL have parsed it
	}
	if u.User == nil {
		findings = problem("%s has no credential for %s: who reaches it reads and writes messages. Set a user and a password there and in the URL.", setting, u.Host)
	}
	if secure := map[string]string{"redis": "rediss", "amqp": "amqps", "nats": "tls"}[u.Scheme]; secure != "" {
		findings = append(findings, withoutTLS(u.Hostname(), setting, "messages and the password pass", "Use "+secure+"://.")...)
	}
	return findings
}

// withoutTLS is the finding that a connection to the host is not encrypted: a problem unless the host is in a
// private network.
func withoutTLS(host, setting, what, remedy string) []finding {
	const format = "%s does not require TLS: %s over the network in plain text. %s"
	switch exposureOfHost(host) {
	case exposedToMachine:
		return nil
	case exposedToNetwork:
		return warning(format, setting, what, remedy)
	case exposedToWorld:
	}
	return problem(format, setting, what, remedy)
}

// exposureOfListener returns from where a listener at the address can be reached. One on all addresses can
// be reached by those that this machine has.
func (m machine) exposureOfListener(address string) exposure {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return exposedToWorld // parseAddress has read it
	}
	addr, err := netip.ParseAddr(host)
	if host != "" && (err != nil || !addr.IsUnspecified()) {
		return exposureOfHost(host)
	}
	addresses, err := m.addresses()
	if err != nil {
		return exposedToWorld
	}
	most := exposedToNetwork
	for _, a := range addresses {
		if p, err := netip.ParsePrefix(a.String()); err == nil {
			most = max(most, exposureOfHost(p.Addr().String()))
		}
	}
	return most
}

// exposureOfHost returns from where a host can be reached: an address, a name, or the folder of a socket.
func exposureOfHost(host string) exposure {
	addr, err := netip.ParseAddr(host)
	switch {
	case host == "", host == "localhost", strings.HasSuffix(host, ".localhost"), strings.HasPrefix(host, "/"):
		return exposedToMachine
	case err == nil && addr.Unmap().IsLoopback():
		return exposedToMachine
	case err == nil && (addr.Unmap().IsPrivate() || addr.IsLinkLocalUnicast()):
		return exposedToNetwork
	case err != nil && !strings.Contains(host, "."):
		return exposedToNetwork
	}
	return exposedToWorld
}
