package signing_test

import (
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/backplane-dev/backplane/internal/signing"
)

// The example of the specification, which all libraries of Standard Webhooks have as a test.
const (
	exampleSecret    = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
	exampleID        = "msg_p5jXN8AQM9LWM0D4loKWxJek"
	exampleTimestamp = 1614265330
	exampleBody      = `{"test": 2432232314}`
	exampleSignature = "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="
)

func parse(t testing.TB, text string) signing.Secret {
	t.Helper()
	s, err := signing.ParseSecret(text)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// newSecret returns the text of a secret.
func newSecret(letter string, bytes int) string {
	return "whsec_" + base64.StdEncoding.EncodeToString([]byte(strings.Repeat(letter, bytes)))
}

func TestSign_gives_the_example_of_Standard_Webhooks(t *testing.T) {
	t.Parallel()
	m := signing.Sign(parse(t, exampleSecret), exampleID, time.Unix(exampleTimestamp, 0), []byte(exampleBody))
	if m.Signature != exampleSignature || m.Timestamp != fmt.Sprint(exampleTimestamp) || m.ID != exampleID {
		t.Errorf("Sign = %q at %s, want %q", m.Signature, m.Timestamp, exampleSignature)
	}
}

func TestVerify(t *testing.T) {
	t.Parallel()
	now := time.Unix(exampleTimestamp, 0)
	current, former, foreign := parse(t, exampleSecret), parse(t, newSecret("f", 32)), parse(t, newSecret("x", 32))
	good := signing.Sign(current, "msg_1", now, []byte("{}"))
	for name, tt := range map[string]struct {
		change  func(*signing.Message)
		secrets []signing.Secret
		at      time.Duration // of the verifier's clock, after the message
		want    error
	}{
		"signed by the only secret":                  {secrets: []signing.Secret{current}},
		"signed by the first of two":                 {secrets: []signing.Secret{current, former}},
		"signed by the second of two":                {secrets: []signing.Secret{former, current}},
		"signed by a foreign secret":                 {secrets: []signing.Secret{foreign, former}, want: signing.ErrSignature},
		"without any secret to verify by":            {want: signing.ErrSignature},
		"signed by two secrets, one of them foreign": {secrets: []signing.Secret{current}, change: func(m *signing.Message) { m.Signature = "v1,AAAA v1a,BBBB " + m.Signature }},
		"another body":                               {secrets: []signing.Secret{current}, change: func(m *signing.Message) { m.Body = []byte("{} ") }, want: signing.ErrSignature},
		"another id":                                 {secrets: []signing.Secret{current}, change: func(m *signing.Message) { m.ID = "msg_2" }, want: signing.ErrSignature},
		"another time":                               {secrets: []signing.Secret{current}, change: func(m *signing.Message) { m.Timestamp = fmt.Sprint(exampleTimestamp + 1) }, want: signing.ErrSignature},
		"a time with a sign":                         {secrets: []signing.Secret{current}, change: func(m *signing.Message) { m.Timestamp = "+" + m.Timestamp }, want: signing.ErrIncomplete},
		"no time":                                    {secrets: []signing.Secret{current}, change: func(m *signing.Message) { m.Timestamp = "" }, want: signing.ErrIncomplete},
		"no id":                                      {secrets: []signing.Secret{current}, change: func(m *signing.Message) { m.ID = "" }, want: signing.ErrIncomplete},
		"a long id":                                  {secrets: []signing.Secret{current}, change: func(m *signing.Message) { m.ID = strings.Repeat("i", 257) }, want: signing.ErrIncomplete},
		"no signature":                               {secrets: []signing.Secret{current}, change: func(m *signing.Message) { m.Signature = " " }, want: signing.ErrIncomplete},
		"too many signatures":                        {secrets: []signing.Secret{current}, change: func(m *signing.Message) { m.Signature = strings.Repeat("v1,AAAA ", 10) + m.Signature }, want: signing.ErrIncomplete},
		"a signature of another scheme":              {secrets: []signing.Secret{current}, change: func(m *signing.Message) { m.Signature = "v2" + m.Signature[2:] }, want: signing.ErrSignature},
		"a signature without its scheme":             {secrets: []signing.Secret{current}, change: func(m *signing.Message) { m.Signature = m.Signature[3:] }, want: signing.ErrSignature},
		"part of a signature":                        {secrets: []signing.Secret{current}, change: func(m *signing.Message) { m.Signature = m.Signature[:7] }, want: signing.ErrSignature},
		"five minutes old":                           {secrets: []signing.Secret{current}, at: 5 * time.Minute},
		"older":                                      {secrets: []signing.Secret{current}, at: 5*time.Minute + time.Second, want: signing.ErrTimestamp},
		"five minutes ahead":                         {secrets: []signing.Secret{current}, at: -5 * time.Minute},
		"further ahead":                              {secrets: []signing.Secret{current}, at: -5*time.Minute - time.Second, want: signing.ErrTimestamp},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m := good
			if tt.change != nil {
				tt.change(&m)
			}
			at, err := signing.Verify(tt.secrets, m, now.Add(tt.at))
			if !errors.Is(err, tt.want) || err == nil && !at.Equal(now) {
				t.Errorf("Verify = %v, %v, want the error %v", at, err, tt.want)
			}
		})
	}
}

// A border between id and timestamp that moves must not give the same signature.
func TestVerify_refuses_ids_with_points(t *testing.T) {
	t.Parallel()
	secret, now := parse(t, exampleSecret), time.Unix(exampleTimestamp, 0)
	m := signing.Sign(secret, "msg_1", now, []byte("1.{}"))
	m.ID, m.Timestamp, m.Body = "msg_1."+m.Timestamp, "1", []byte("{}")
	if _, err := signing.Verify([]signing.Secret{secret}, m, time.Unix(1, 0)); err == nil {
		t.Error("the same signature is valid for another id and another time")
	}
}

func TestParseSecret_refuses_all_but_keys_of_a_safe_size(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]bool{
		exampleSecret: true, newSecret("a", 24): true, newSecret("a", 64): true,
		newSecret("a", 23): false, newSecret("a", 65): false, strings.TrimPrefix(exampleSecret, "whsec_"): false, "whsec_": false, "whsec_!": false, "": false,
	} {
		if s, err := signing.ParseSecret(text); (err == nil) != want {
			t.Errorf("ParseSecret(%q) = %v, want success %v", text, err, want)
		} else if shown := fmt.Sprintf("%v %+v %#v %s", s, s, s, s); strings.Contains(shown, "97") || strings.Contains(shown, "aaa") {
			t.Errorf("a secret prints as %s", shown)
		}
	}
}

// FuzzVerify looks for a message that is accepted though its sender has no secret.
func FuzzVerify(f *testing.F) {
	secret, now := parse(f, exampleSecret), time.Unix(exampleTimestamp, 0)
	f.Add(exampleID, fmt.Sprint(exampleTimestamp), exampleSignature, []byte(exampleBody))
	f.Add("a.1", "1", "v1,", []byte("{}"))
	f.Add("", "-1", "v1,AA== v1,AA==", []byte(nil))
	f.Fuzz(func(t *testing.T, id, timestamp, signature string, body []byte) {
		m := signing.Message{ID: id, Timestamp: timestamp, Signature: signature, Body: body}
		at, err := signing.Verify([]signing.Secret{secret}, m, now)
		if err != nil {
			return
		}
		if want := signing.Sign(secret, id, at, body); want.Timestamp != timestamp || !strings.Contains(signature, want.Signature) {
			t.Errorf("Verify accepts %q at %q by %q, which the secret did not sign", id, timestamp, signature)
		}
	})
}
