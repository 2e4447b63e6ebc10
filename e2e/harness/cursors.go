package harness

import (
	"strings"
	"testing"

	"github.com/backplane-dev/backplane/internal/app"
	"github.com/backplane-dev/backplane/internal/cursor"
	"github.com/backplane-dev/backplane/internal/event"
	"github.com/backplane-dev/backplane/internal/secrets"
	"github.com/backplane-dev/backplane/internal/store"
)

// Cursors returns the codec of the cursors that servers with Settings on the database give to clients.
func Cursors(t *testing.T, database string) *cursor.Codec {
	t.Helper()
	db, err := store.Open(t.Context(), store.Config{URL: database})
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	key, err := secrets.ParseMasterKey(masterKey)
	if err != nil {
		t.Fatal(err)
	}
	sealer, err := secrets.JoinSealer(t.Context(), db.Secrets(), key)
	if err != nil {
		t.Fatal(err)
	}
	return app.NewCursors(sealer)
}

// masterKey is the secret key of Settings.
var masterKey = strings.Repeat("k", 43)

// DecodeCursor returns what a cursor of a client stands for.
func DecodeCursor(t *testing.T, codec *cursor.Codec, text string) event.Cursor {
	t.Helper()
	if strings.Contains(text, ".") {
		t.Errorf("a client got the plain cursor %s", text)
	}
	at, err := codec.Decode(text)
	if err != nil {
		t.Fatalf("the cursor %s: %v", text, err)
	}
	return at
}
