package websocket

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/backplane-dev/backplane/internal/httpd/connection"
)

func FuzzDecodeMessage(f *testing.F) {
	for _, s := range []string{
		`{"type":"connection_init","payload":{"authorization":"Bearer x"}}`, `{"id":"1","type":"subscribe","payload":{"query":"{a}","variables":{"a":1.50}}}`,
		`{"type":"ping","payload":null}`, `{"id":"1","type":"complete"}`, `{"type":1}`, `[]`, `{"type":"a","type":"b"}`, "\xff", `{"id":{},"type":"x"}`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		m, reason := decodeMessage(text)
		if reason != nil {
			checkReason(t, reason, 4400)
			return
		}
		if !json.Valid(text) {
			t.Errorf("decodeMessage accepted %q", text)
		}
		for _, read := range []func() *connection.CloseReason{
			func() *connection.CloseReason { _, reason := m.object(); return reason },
			func() *connection.CloseReason { _, reason := m.request(); return reason },
			func() *connection.CloseReason {
				fields, _ := m.object()
				_, _, reason := tokenOf(fields)
				return reason
			},
		} {
			if reason := read(); reason != nil {
				checkReason(t, reason, 4400)
			}
		}
		var out bytes.Buffer
		if err := (outgoing{"pong", m.id, m.payload}).encodeTo(&out); err != nil || !json.Valid(out.Bytes()) {
			t.Errorf("a pong is %q, %v, want JSON", out.Bytes(), err)
		}
	})
}

func checkReason(t *testing.T, reason *connection.CloseReason, code int) {
	t.Helper()
	if reason.Code != code || reason.Text == "" || len(reason.Text) > connection.MaxReasonBytes || !utf8.ValidString(reason.Text) {
		t.Errorf("close reason = %d %q, want %d and a text that fits a close frame", reason.Code, reason.Text, code)
	}
}

func TestCloseReasons_fit_a_close_frame(t *testing.T) {
	t.Parallel()
	for _, reason := range []*connection.CloseReason{
		reasonConnectionLost, reasonIdle, reasonProtocolError, reasonInvalidUTF8, reasonMessageTimeout, reasonMessageTooBig, reasonNotAcknowledged, reasonSubprotocol, reasonSecondInit,
		duplicateID(strings.Repeat("ä", connection.MaxIDBytes/2)), duplicateID("x" + strings.Repeat("ä", connection.MaxIDBytes/2)), invalidMessage(strings.Repeat("ö", 200)),
	} {
		checkReason(t, reason, reason.Code)
	}
}
