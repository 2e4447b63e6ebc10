package cli

import (
	"bytes"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/backplane-dev/backplane/internal/config"
	"github.com/backplane-dev/backplane/internal/setting"
)

// machineAt is a machine with the addresses, each with its prefix.
func machineAt(addresses ...string) machine {
	return machine{
		addresses: func() (all []net.Addr, err error) {
			for _, a := range addresses {
				ip, network, err := net.ParseCIDR(a)
				if err != nil {
					return nil, err
				}
				all = append(all, &net.IPNet{IP: ip, Mask: network.Mask})
			}
			return all, nil
		},
		getenv: func(string) string { return "" },
	}
}

// found returns the settings that the findings name first, each with ! for a problem or ? for a warning.
func found(t *testing.T, m machine, environ ...string) (names []string) {
	t.Helper()
	c, err := config.FromEnv(environ, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range unsafeSettings(m, c) {
		name := regexp.MustCompile(`BACKPLANE_([A-Z_]+)`).FindStringSubmatch(f.text)
		level := "!"
		if f.warning {
			level = "?"
		}
		if len(name) == 0 || !strings.Contains(f.text, ". ") && !strings.Contains(f.text, ": ") {
			t.Errorf("the finding names no setting or does not say what to do: %s", f.text)
			continue
		}
		names = append(names, level+name[1])
	}
	return names
}

func TestUnsafeSettings_are_found(t *testing.T) {
	t.Parallel()
	private, public := machineAt("127.0.0.1/8", "10.0.0.5/24", "fe80::1/64"), machineAt("127.0.0.1/8", "203.0.113.7/24")
	const postgres = "BACKPLANE_DATABASE_URL=postgres://u:p@127.0.0.1/x"
	behindProxy := []string{postgres, "BACKPLANE_LISTEN=:8080", "BACKPLANE_TRUSTED_PROXIES=10.0.0.1", "BACKPLANE_DOCS=off", "BACKPLANE_INTROSPECTION=off"}
	database := func(url string) []string { return []string{"BACKPLANE_DATABASE_URL=" + url} }
	for name, tt := range map[string]struct {
		machine machine
		environ []string
		want    []string
	}{
		"the defaults are safe":                           {public, nil, nil},
		"a server behind a proxy is safe":                 {public, behindProxy, nil},
		"no rate limit":                                   {private, []string{"BACKPLANE_RATE_LIMIT=off"}, []string{"?RATE_LIMIT"}},
		"every address of IPv4 is a proxy":                {private, []string{"BACKPLANE_TRUSTED_PROXIES=10.0.0.0/8,0.0.0.0/0"}, []string{"!TRUSTED_PROXIES"}},
		"every address of IPv6 is a proxy":                {private, []string{"BACKPLANE_TRUSTED_PROXIES=::/0"}, []string{"!TRUSTED_PROXIES"}},
		"the halves of the internet are proxies":          {private, []string{"BACKPLANE_TRUSTED_PROXIES=0.0.0.0/1,128.0.0.0/1"}, []string{"!TRUSTED_PROXIES", "!TRUSTED_PROXIES"}},
		"half of the internet is a trusted network":       {private, []string{"BACKPLANE_TRUSTED_NETWORKS=0.0.0.0/1=KEY"}, []string{"!TRUSTED_NETWORKS"}},
		"all addresses of a machine in a private network": {private, []string{postgres, "BACKPLANE_LISTEN=:8080"}, []string{"?LISTEN"}},
		"all addresses of a machine on the internet":      {public, []string{postgres, "BACKPLANE_LISTEN=:8080"}, []string{"?DOCS", "?INTROSPECTION", "!LISTEN"}},
		"0.0.0.0 and [::] are all addresses":              {private, []string{postgres, "BACKPLANE_LISTEN=0.0.0.0:80", "BACKPLANE_ADMIN_LISTEN=[::]:90"}, []string{"?ADMIN_LISTEN", "?LISTEN"}},
		"a public address":                                {private, []string{postgres, "BACKPLANE_LISTEN=203.0.113.7:80"}, []string{"?DOCS", "?INTROSPECTION", "!LISTEN"}},
		"a public name":                                   {private, []string{postgres, "BACKPLANE_LISTEN=shop.example:80"}, []string{"?DOCS", "?INTROSPECTION", "!LISTEN"}},
		"documents are public":                            {public, append(slices.Clone(behindProxy), "BACKPLANE_DOCS=on"), []string{"?DOCS"}},
		"the schema is public":                            {public, append(slices.Clone(behindProxy), "BACKPLANE_INTROSPECTION=on"), []string{"?INTROSPECTION"}},
		"the admin listener is public":                    {public, []string{"BACKPLANE_ADMIN_LISTEN=:9090"}, []string{"!ADMIN_LISTEN"}},
		"the admin listener is off":                       {public, []string{"BACKPLANE_ADMIN_LISTEN=off"}, nil},
		"SQLite allows calls to all private networks":     {private, []string{"BACKPLANE_LISTEN=:8080", "BACKPLANE_TRUSTED_PROXIES=10.0.0.1"}, []string{"?OUTBOUND_NETWORKS"}},
		"calls to all networks":                           {private, append(slices.Clone(behindProxy), "BACKPLANE_OUTBOUND_NETWORKS=0.0.0.0/0"), []string{"?OUTBOUND_NETWORKS"}},
		"any host name":                                   {private, []string{"BACKPLANE_ALLOWED_HOSTS=shop.example,*"}, []string{"?ALLOWED_HOSTS"}},
		"any host name and a trusted network":             {private, []string{"BACKPLANE_ALLOWED_HOSTS=*", "BACKPLANE_TRUSTED_NETWORKS=10.0.0.0/8=KEY"}, []string{"!ALLOWED_HOSTS"}},
		"any origin":                                      {private, []string{"BACKPLANE_CORS_ORIGINS=*"}, nil},
		"any origin and a trusted network":                {private, []string{"BACKPLANE_CORS_ORIGINS=*", "BACKPLANE_TRUSTED_NETWORKS=10.0.0.0/8=KEY"}, []string{"!CORS_ORIGINS"}},
		"a common password of ADMIN":                      {private, []string{"BACKPLANE_ADMIN_USERNAME=root", "BACKPLANE_ADMIN_PASSWORD=Password123!"}, []string{"!ADMIN_PASSWORD"}},
		"the name as the password of ADMIN":               {private, []string{"BACKPLANE_ADMIN_USERNAME=shopkeeper", "BACKPLANE_ADMIN_PASSWORD=Shopkeeper1"}, []string{"!ADMIN_PASSWORD"}},
		"PostgreSQL elsewhere without TLS":                {private, database("postgres://u:p@db.shop.example/x?sslmode=disable"), []string{"!DATABASE_URL"}},
		"PostgreSQL elsewhere, perhaps without TLS":       {private, database("postgres://u:p@db.shop.example/x"), []string{"!DATABASE_URL"}},
		"PostgreSQL elsewhere with TLS":                   {private, database("postgres://u:p@db.shop.example/x?sslmode=require"), nil},
		"PostgreSQL in a private network without TLS":     {private, database("postgres://u:p@10.0.0.9/x?sslmode=disable"), []string{"?DATABASE_URL"}},
		"PostgreSQL of a container network without TLS":   {private, database("postgres://u:p@postgres/x"), []string{"?DATABASE_URL"}},
		"PostgreSQL by the parameter host without TLS":    {private, database("postgres:///x?host=db.shop.example&user=u"), []string{"!DATABASE_URL"}},
		"PostgreSQL by a socket":                          {private, database("postgres:///x?host=/run/postgresql&user=u"), nil},
		"Redis elsewhere without password and TLS":        {private, []string{"BACKPLANE_REDIS_URL=redis://cache.shop.example:6379"}, []string{"!REDIS_URL", "!REDIS_URL"}},
		"Redis elsewhere with a password, without TLS":    {private, []string{"BACKPLANE_REDIS_URL=redis://:pw@cache.shop.example:6379"}, []string{"!REDIS_URL"}},
		"Redis in a private network without a password":   {private, []string{"BACKPLANE_REDIS_URL=redis://10.0.0.9"}, []string{"!REDIS_URL", "?REDIS_URL"}},
		"Redis elsewhere with password and TLS":           {private, []string{"BACKPLANE_REDIS_URL=rediss://:pw@cache.shop.example:6379"}, nil},
		"Redis on this machine":                           {private, []string{"BACKPLANE_REDIS_URL=redis://localhost"}, nil},
		"sinks elsewhere without TLS": {
			private, []string{"BACKPLANE_SINKS=redis://:p@a.example,amqp://u:p@b.example,nats://u:p@c.example,amqps://u:p@d.example?name=d,tls://u:p@e.example?name=e,redis://[::1]?name=f"},
			[]string{"!SINKS", "!SINKS", "!SINKS"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if diff := cmp.Diff(tt.want, found(t, tt.machine, tt.environ...)); diff != "" {
				t.Errorf("found (-want +got):\n%s", diff)
			}
		})
	}
}

func TestUnsafeSettings_show_no_secret(t *testing.T) {
	t.Parallel()
	const secret = "s3cr3t-of-the-operator"
	c, err := config.FromEnv([]string{
		"BACKPLANE_DATABASE_URL=postgres://u:" + secret + "@db.example/x", "BACKPLANE_REDIS_URL=redis://:" + secret + "@r.example", "BACKPLANE_SINKS=amqp://u:" + secret + "@b.example",
		"BACKPLANE_TRUSTED_NETWORKS=0.0.0.0/1=" + secret, "BACKPLANE_ADMIN_USERNAME=" + secret, "BACKPLANE_ADMIN_PASSWORD=" + secret, "BACKPLANE_SECRET_KEY=" + strings.Repeat(secret, 2),
	}, nil)
	if err != nil {
		t.Fatal(err)
	}
	findings := unsafeSettings(machineAt(), c)
	if len(findings) < 5 {
		t.Errorf("%d findings, want one for each setting", len(findings))
	}
	for _, f := range findings {
		if strings.Contains(f.text, secret) {
			t.Errorf("a finding shows a secret: %s", f.text)
		}
	}
}

func TestUnsafeSettings_find_a_folder_that_others_may_write_to(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	environ := "BACKPLANE_DATABASE_URL=sqlite:" + filepath.Join(dir, "backplane.db")
	for mode, want := range map[os.FileMode][]string{0o700: nil, 0o755: nil, 0o777: {"!DATABASE_URL"}, 0o777 | os.ModeSticky: nil} {
		if err := os.Chmod(dir, mode); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, found(t, machineAt(), environ)); diff != "" {
			t.Errorf("mode %v (-want +got):\n%s", mode, diff)
		}
	}
}

// TestUnsafeSettings_are_those_of_the_security_model holds docs/security.md and doctor to the same settings.
func TestUnsafeSettings_are_those_of_the_security_model(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile("../../docs/security.md")
	if err != nil {
		t.Fatal(err)
	}
	_, section, ok := strings.Cut(string(text), "\n## What operators must set\n")
	if !ok {
		t.Fatal("docs/security.md has no section of what operators must set")
	}
	section, _, _ = strings.Cut(section, "\n## ")
	rows := map[string]bool{}
	for _, row := range regexp.MustCompile("(?m)^\\| `BACKPLANE_([A-Z_]+)`").FindAllStringSubmatch(section, -1) {
		rows[row[1]] = true
	}
	checked := map[string]bool{"SECRET_KEY": true} // by checkSecretKey
	for name := range settingChecks {
		checked[name] = true
	}
	if diff := cmp.Diff(checked, rows); diff != "" {
		t.Errorf("the settings that doctor checks are not the rows of docs/security.md (-doctor +document):\n%s", diff)
	}
	for name := range checked {
		if !slices.ContainsFunc(config.Settings(), func(s setting.Setting) bool { return s.Name == name }) {
			t.Errorf("there is no setting %s", name)
		}
	}
}

func TestPrintFindings(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		findings []finding
		want     string
		fails    bool
	}{
		{nil, "no problems found\n", false},
		{warning("A."), "no problems found\n- warning: A.\n", false},
		{append(warning("A."), problem("B.")...), "- B.\n- warning: A.\n", true},
	} {
		var out bytes.Buffer
		if err := printFindings(&out, tt.findings); (err != nil) != tt.fails || out.String() != tt.want {
			t.Errorf("%v: printed %q, %v; want %q", tt.findings, out.String(), err, tt.want)
		}
	}
}
