package config_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/backplane-dev/backplane/internal/config"
)

func TestFromEnv_reads_sinks(t *testing.T) {
	t.Parallel()
	got, err := read([]string{"BACKPLANE_SINKS=redis://u:p%2Cq@cache:6379/2?stream=log&maxlen=1000, amqps://u:p@mq/shop%2Feu?exchange=e&mandatory=on&name=mq.eu&from=head&source=https://shop.example,nats://js:4222?stream=S&subject=a.b,redis://other?name=second"})
	if err != nil {
		t.Fatal(err)
	}
	want := []config.Sink{
		{Kind: config.RedisSink, Name: "redis", URL: "redis://u:p,q@cache:6379/2", Address: "redis://cache:6379/2", Source: "/backplane", Stream: "log", MaxLen: 1000},
		{Kind: config.RabbitMQSink, Name: "mq.eu", URL: "amqps://u:p@mq/shop%2Feu", Address: "amqps://mq/shop%2Feu", FromHead: true, Source: "https://shop.example", Exchange: "e", Mandatory: true},
		{Kind: config.NATSSink, Name: "nats", URL: "nats://js:4222", Address: "nats://js:4222", Source: "/backplane", Stream: "S", Subject: "a.b"},
		{Kind: config.RedisSink, Name: "second", URL: "redis://other", Address: "redis://other", Source: "/backplane", Stream: "backplane.events"},
	}
	if diff := cmp.Diff(want, got.Sinks); diff != "" {
		t.Errorf("the sinks are (-want +got):\n%s", diff)
	}
	if text := fmt.Sprintf("%v %+v %#v", got.Sinks, got.Sinks, got.Sinks); strings.Contains(text, "p,q") || strings.Contains(text, "u:p") {
		t.Errorf("a password is shown: %s", text)
	}
}

func TestFromEnv_tells_all_that_is_wrong_with_sinks(t *testing.T) {
	t.Parallel()
	_, err := read([]string{"BACKPLANE_LISTEN=nowhere", "BACKPLANE_SINKS=" + strings.Join([]string{
		"kafka://h?topic=t", "redis://u:hunter2@h/x?strem=a&maxlen=-1", "nats://h/path?subject=a.*&stream=a.b", "amqp://h/a/b?mandatory=yes&mandatory=no",
		"redis://h?name=Big", "nats://h", "nats://h", "", "amqp://h?from=middle&name=a&source=a%20b",
	}, ",")})
	if err == nil {
		t.Fatal("FromEnv found nothing wrong")
	}
	for _, want := range []string{
		"BACKPLANE_LISTEN is", "BACKPLANE_SINKS is not usable",
		"in number 1 the scheme is none of redis",
		`in number 2 the option "strem" is none of from, maxlen, name, source, stream`, `in number 2 the option "maxlen" must be`, "in number 2 the path must be the number of a database",
		`in number 3 the option "subject" must be`, `in number 3 the option "stream" must be`, "in number 3 there must be no path",
		`in number 4 the option "mandatory" is given twice`, `in number 4 the option "mandatory" must be on or off`, "in number 4 the path must be a virtual host",
		`in number 5 the option "name" must be`, `in number 6 another is named "nats"`, `in number 7 another is named "nats"`, "in number 8 there is no URL with a host",
		`in number 9 the option "from" must be oldest or head`, `in number 9 the option "source" must be`,
	} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("the mistakes lack %q:\n%v", want, err)
		}
	}
	if strings.Contains(err.Error(), "hunter2") {
		t.Errorf("the mistakes show a password: %v", err)
	}
}
