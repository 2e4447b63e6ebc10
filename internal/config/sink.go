package config

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// Sink is a broker that the event log is exported to, and where in the broker.
type Sink struct {
	Kind     SinkKind
	Name     string // of its offset in the log
	URL      Secret // of the broker, without the options below
	Address  string // of the broker without credentials, to be shown
	FromHead bool   // a new sink begins at the head of the log, instead of at the oldest event
	Source   string // attribute of the events

	Stream    string // Redis: key; NATS: name
	MaxLen    int64  // Redis: entries to keep, about; 0 keeps all
	Exchange  string // RabbitMQ
	Mandatory bool   // RabbitMQ: an event that is unroutable blocks the export, instead of being dropped
	Subject   string // NATS: prefix of the subjects of all events
}

// HostPort returns the host:port of the broker.
func (s *Sink) HostPort() string {
	u, err := url.Parse(s.Address)
	if err != nil {
		return "" // parseSink has made it
	}
	defaults := map[string]string{"redis": "6379", "rediss": "6379", "amqp": "5672", "amqps": "5671", "nats": "4222", "tls": "4222"}
	return net.JoinHostPort(u.Hostname(), cmp.Or(u.Port(), defaults[u.Scheme]))
}

// SinkKind says what kind of broker a sink is.
type SinkKind string

// The kinds of sinks, which are also their names if no other is given.
const (
	RedisSink    SinkKind = "redis"
	RabbitMQSink SinkKind = "rabbitmq"
	NATSSink     SinkKind = "nats"
)

// The defaults of options.
const (
	defaultSource   = "/backplane"
	defaultKey      = "backplane.events"
	defaultExchange = "backplane"
	defaultStream   = "BACKPLANE"
	defaultSubject  = "backplane"
)

var (
	sinkName = regexp.MustCompile(`^[a-z0-9][a-z0-9_.-]{0,62}$`)
	// natsStream and natsSubject are what NATS takes without wildcards.
	natsStream  = regexp.MustCompile(`^[A-Za-z0-9_-]{1,64}$`)
	natsSubject = regexp.MustCompile(`^[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*$`)
	plainName   = regexp.MustCompile(`^[\x21-\x7e]{1,127}$`)
)

// parseSinks reads the URLs of sinks. Its error lists all that is wrong with any of
// them, by number, as the URLs may hold passwords.
func parseSinks(value string) ([]Sink, error) {
	var all []Sink
	var wrong []string
	for i, part := range strings.Split(value, ",") {
		s, mistakes := parseSink(strings.TrimSpace(part))
		if slices.ContainsFunc(all, func(other Sink) bool { return other.Name == s.Name && s.Name != "" }) {
			mistakes = append(mistakes, fmt.Sprintf("another is named %q, too: give each a name of its own with ?name=", s.Name))
		}
		all = append(all, s)
		for _, m := range mistakes {
			wrong = append(wrong, fmt.Sprintf("in number %d %s", i+1, m))
		}
	}
	if len(wrong) > 0 {
		return nil, errors.New("URLs of brokers such as redis://HOST:PORT/DB?stream=NAME, amqp://USER:PASSWORD@HOST/VHOST?exchange=NAME " +
			"or nats://HOST:PORT?stream=NAME&subject=NAME, with commas between them and %2C for a comma inside; " + strings.Join(wrong, "; "))
	}
	return all, nil
}

// parseSink reads one URL and returns all that is wrong with it.
func parseSink(value string) (s Sink, mistakes []string) {
	u, err := url.Parse(value)
	if err != nil || u.Host == "" || u.Hostname() == "" {
		return s, []string{"there is no URL with a host"}
	}
	kind, ok := map[string]SinkKind{
		"redis": RedisSink, "rediss": RedisSink, "amqp": RabbitMQSink, "amqps": RabbitMQSink, "nats": NATSSink, "tls": NATSSink,
	}[u.Scheme]
	if !ok {
		return s, []string{"the scheme is none of redis, rediss (with TLS), amqp, amqps (with TLS), nats and tls (NATS with TLS)"}
	}
	s.Kind = kind
	options, err := url.ParseQuery(u.RawQuery)
	if err != nil {
		mistakes = append(mistakes, "the options after the question mark cannot be read")
	}
	mistakes = append(mistakes, s.setOptions(options)...)
	mistakes = append(mistakes, s.checkPath(u.EscapedPath())...)
	u.RawQuery, u.Fragment = "", ""
	s.URL = Secret(u.String())
	u.User = nil
	s.Address = u.String()
	return s, mistakes
}

// sinkOption is an option in the query of a URL.
type sinkOption struct {
	fallback string
	want     string // continues "must be"
	set      func(s *Sink, value string) bool
}

func matchPattern(valid *regexp.Regexp, field func(*Sink) *string) func(*Sink, string) bool {
	return func(s *Sink, value string) bool {
		*field(s) = value
		return valid.MatchString(value)
	}
}

func parseChoice(yes, no string, field func(*Sink) *bool) func(*Sink, string) bool {
	return func(s *Sink, value string) bool {
		*field(s) = value == yes
		return value == yes || value == no
	}
}

func (k SinkKind) options() map[string]sinkOption {
	all := map[string]sinkOption{
		"name": {string(k), "1 to 63 of a-z, 0-9, dot, dash and underscore", matchPattern(sinkName, func(s *Sink) *string { return &s.Name })},
		"from": {"oldest", "oldest or head", parseChoice("head", "oldest", func(s *Sink) *bool { return &s.FromHead })},
		"source": {defaultSource, "a URI or a path that names this installation", func(s *Sink, value string) bool {
			s.Source = value
			_, err := url.Parse(value)
			return err == nil && plainName.MatchString(value)
		}},
	}
	stream := func(s *Sink) *string { return &s.Stream }
	switch k {
	case RedisSink:
		all["stream"] = sinkOption{defaultKey, "1 to 127 ASCII characters without spaces", matchPattern(plainName, stream)}
		all["maxlen"] = sinkOption{"0", "a whole number from 0 (keep all) to 1000000000", func(s *Sink, value string) bool {
			n, err := strconv.ParseInt(value, 10, 64)
			s.MaxLen = n
			return err == nil && n >= 0 && n <= 1_000_000_000
		}}
	case RabbitMQSink:
		all["exchange"] = sinkOption{defaultExchange, "1 to 127 ASCII characters without spaces", matchPattern(plainName, func(s *Sink) *string { return &s.Exchange })}
		all["mandatory"] = sinkOption{"off", "on or off", parseChoice("on", "off", func(s *Sink) *bool { return &s.Mandatory })}
	case NATSSink:
		all["stream"] = sinkOption{defaultStream, "1 to 64 letters, digits, dashes and underscores", matchPattern(natsStream, stream)}
		all["subject"] = sinkOption{defaultSubject, "words of letters, digits, dashes and underscores, with dots between them", matchPattern(natsSubject, func(s *Sink) *string { return &s.Subject })}
	}
	return all
}

// setOptions sets the options of a URL, and the defaults of the others.
func (s *Sink) setOptions(given url.Values) (mistakes []string) {
	known := s.Kind.options()
	names := slices.Sorted(maps.Keys(known))
	for _, name := range slices.Sorted(maps.Keys(given)) {
		if _, ok := known[name]; !ok {
			mistakes = append(mistakes, fmt.Sprintf("the option %q is none of %s", name, strings.Join(names, ", ")))
		} else if len(given[name]) > 1 {
			mistakes = append(mistakes, fmt.Sprintf("the option %q is given twice", name))
		}
	}
	for _, name := range names {
		o := known[name]
		if value := cmp.Or(given.Get(name), o.fallback); !o.set(s, value) {
			mistakes = append(mistakes, fmt.Sprintf("the option %q must be %s", name, o.want))
		}
	}
	return mistakes
}

// checkPath checks the path of the URL.
func (s *Sink) checkPath(path string) []string {
	path = strings.TrimPrefix(path, "/")
	switch s.Kind {
	case RedisSink:
		if _, err := strconv.ParseUint(path, 10, 16); err != nil && path != "" {
			return []string{"the path must be the number of a database, such as /0"}
		}
	case NATSSink:
		if path != "" {
			return []string{"there must be no path"}
		}
	case RabbitMQSink: // a virtual host, with %2F for a slash inside
		if strings.Contains(path, "/") {
			return []string{"the path must be a virtual host, with %2F for a slash inside"}
		}
	}
	return nil
}
