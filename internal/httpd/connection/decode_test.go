package connection

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/backplane-dev/backplane/internal/fault"
)

func FuzzDecodeMessage(f *testing.F) {
	for _, s := range []string{
		`{"type":"connection_init","payload":{"authorization":"Bearer x"}}`, `{"id":"1","type":"subscribe","payload":{"query":"{a}","variables":{"a":1.50}}}`,
		`{"type":"ping","payload":null}`, `{"id":"1","type":"complete"}`, `{"type":1}`, `[]`, `{"type":"a","type":"b"}`, "\xff", `{"id":{},"type":"x"}`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		m, why := decodeMessage(text)
		if why != nil {
			checkEnding(t, why, 4400)
			return
		}
		if !json.Valid(text) || len(m.id) > maxID {
			t.Errorf("decodeMessage took %q", text)
		}
		for _, read := range []func() *ending{
			func() *ending { _, why := m.object(); return why },
			func() *ending { _, why := m.request(); return why },
			func() *ending { fields, _ := m.object(); _, _, why := bearer(fields); return why },
		} {
			if why := read(); why != nil {
				checkEnding(t, why, 4400)
			}
		}
		var out bytes.Buffer
		if err := (outgoing{"pong", m.id, m.payload}).writeTo(&out); err != nil || !json.Valid(out.Bytes()) {
			t.Errorf("a pong is %q, %v, want JSON", out.Bytes(), err)
		}
	})
}

func checkEnding(t *testing.T, why *ending, code int) {
	t.Helper()
	if int(why.code) != code || why.reason == "" || len(why.reason) > maxReason || !utf8.ValidString(why.reason) {
		t.Errorf("ending = %d %q, want %d and a reason that fits a close frame", why.code, why.reason, code)
	}
}

func TestEndings_fitACloseFrame(t *testing.T) {
	t.Parallel()
	for _, why := range []*ending{
		endStopping, endIdle, endDead, endGone, endSlow, endNoText, endBroken, endInternal, endTooEarly, endProtocol, endNoInit, endTwoInits,
		endExpired, endRevoked, endOtherUser, endUncheckable, duplicate(strings.Repeat("ä", maxID/2)), duplicate("x" + strings.Repeat("ä", maxID/2)), invalid(strings.Repeat("ö", 200)),
	} {
		checkEnding(t, why, int(why.code))
	}
}

func TestRefused_knowsEveryKind(t *testing.T) {
	t.Parallel()
	want := map[fault.Kind]int{fault.Internal: 4500, fault.Exhausted: 1013, fault.Unavailable: 1013, fault.Timeout: 1013}
	for _, k := range fault.Kinds() {
		code := 4403
		if c, ok := want[k]; ok {
			code = c
		}
		checkEnding(t, refused(fault.New(k, fault.BadRequest, "No.")), code)
	}
}

func TestConfig_refusesNonsense(t *testing.T) {
	t.Parallel()
	for _, cfg := range []Config{{Connections: -1}, {Operations: -1}, {KeepAlive: -1}, {CheckTime: -1}} {
		if _, err := cfg.withDefaults(); err == nil {
			t.Errorf("withDefaults(%+v) gave no error", cfg)
		}
	}
}
