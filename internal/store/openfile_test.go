package store_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/backplane-dev/backplane/internal/claim"
	"github.com/backplane-dev/backplane/internal/fault"
	"github.com/backplane-dev/backplane/internal/store"
	"github.com/backplane-dev/backplane/internal/testenv"
	"github.com/backplane-dev/backplane/internal/user"
)

func TestSQLite_refuses_changes_while_its_file_is_another(t *testing.T) {
	t.Parallel()
	url := testenv.SQLite(t)
	path := strings.TrimPrefix(url, "sqlite:")
	db := testenv.Open(t, store.Config{URL: url})
	who := givenUser(t, db).ID
	change := func() error {
		_, err := db.Users().Update(t.Context(), claim.None, who, renameUser)
		return err
	}
	for what, replace := range map[string]func() error{
		"removed": func() error { return nil },
		"replaced": func() error {
			text, err := os.ReadFile(path + ".aside")
			return errors.Join(err, os.WriteFile(path, text, 0o600))
		},
	} {
		if err := errors.Join(os.Rename(path, path+".aside"), replace()); err != nil {
			t.Fatal(err)
		}
		for call, err := range map[string]error{"a change": change(), "CheckWritable": db.CheckWritable(t.Context())} {
			if !fault.Is(err, fault.Unavailable) || !strings.Contains(err.Error(), what+" while it is open") {
				t.Errorf("with the file %s %s gave %v, want UNAVAILABLE and what to do", what, call, err)
			}
		}
		if err := os.Rename(path+".aside", path); err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(change(), db.CheckWritable(t.Context())); err != nil {
			t.Errorf("with the file back a change gave %v", err)
		}
	}
}

func TestSQLite_refuses_a_commit_after_its_file_was_removed(t *testing.T) {
	t.Parallel()
	url := testenv.SQLite(t)
	db := testenv.Open(t, store.Config{URL: url})
	who := givenUser(t, db).ID
	_, err := db.Users().Update(t.Context(), claim.None, who, func(u *user.User) error {
		return errors.Join(renameUser(u), os.Remove(strings.TrimPrefix(url, "sqlite:")))
	})
	if !fault.Is(err, fault.Unavailable) {
		t.Errorf("a change during which the file was removed gave %v, want UNAVAILABLE", err)
	}
}

func TestOpen_names_a_file_that_is_no_database(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "notes.db")
	if err := os.WriteFile(path, []byte(strings.Repeat("these are my notes. ", 100)), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err := store.Open(t.Context(), store.Config{URL: "sqlite:" + path})
	if err == nil || !strings.Contains(err.Error(), path) || !strings.Contains(err.Error(), "not a database") {
		t.Errorf("Open = %v, want the file and the cause", err)
	}
}

// TestSQLite_needs_no_folder_for_temporary_files: a container may have none that can be written to.
func TestSQLite_needs_no_folder_for_temporary_files(t *testing.T) {
	t.Parallel()
	const memory = 2
	for name, got := range testenv.Open(t, store.Config{URL: testenv.SQLite(t)}).TempStores(t) {
		if got != memory {
			t.Errorf("temp_store of connections for %s is %d, want %d", name, got, memory)
		}
	}
}
