package app

import (
	"os"
	"path/filepath"
	"testing"
)

func TestKeyFile_is_next_to_the_database_that_a_path_leads_to(t *testing.T) {
	t.Parallel()
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	at := func(names ...string) string { return filepath.Join(append([]string{dir}, names...)...) }
	for _, name := range []string{"real", "links", "old"} {
		if err := os.Mkdir(at(name), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	for name, text := range map[string]string{at("real", "a.db"): "", at("old", "secret.key"): "k"} {
		if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for link, target := range map[string]string{
		at("links", "absolute.db"): at("real", "a.db"), at("links", "relative.db"): "../real/a.db", at("links", "new.db"): "../real/new.db", at("old", "a.db"): at("real", "a.db"),
		at("folder"): at("real"),
	} {
		if err := os.Symlink(target, link); err != nil {
			t.Fatal(err)
		}
	}
	for path, want := range map[string]string{
		at("real", "a.db"): at("real", "secret.key"), at("real", "none.db"): at("real", "secret.key"), at("links", "absolute.db"): at("real", "secret.key"),
		at("links", "relative.db"): at("real", "secret.key"), at("links", "new.db"): at("real", "secret.key"), at("folder", "a.db"): at("real", "secret.key"),
		at("old", "a.db"): at("old", "secret.key"), // where a former version put it
	} {
		if got := keyFile(path); got != want {
			t.Errorf("keyFile(%s) = %s, want %s", path, got, want)
		}
	}
}
