package fault

import (
	"io/fs"
	"os"
	"regexp"
	"strings"
	"testing"
)

// made matches where an error is made: its kind, and the name of its code.
var made = regexp.MustCompile(`fault\.New\(fault\.(\w+), fault\.(\w+),`)

// ofSeveralKinds are the codes that stand for an error of another kind in places.
// By its code alone BAD_REQUEST is the fault of the request.
var ofSeveralKinds = map[string]bool{"BadRequest": true, "LimitReached": true}

func TestCode_Kind_is_the_kind_that_errors_are_made_with(t *testing.T) {
	t.Parallel()
	kinds := map[string]Kind{
		"Internal": Internal, "Invalid": Invalid, "Unauthenticated": Unauthenticated, "Forbidden": Forbidden, "NotFound": NotFound,
		"Conflict": Conflict, "Exhausted": Exhausted, "Unavailable": Unavailable, "Timeout": Timeout,
	}
	codes := declared(t)
	err := fs.WalkDir(os.DirFS("../.."), ".", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() && (d.Name() == "node_modules" || strings.HasPrefix(d.Name(), ".") && path != ".") {
			return fs.SkipDir
		}
		if !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return nil
		}
		text, err := os.ReadFile("../../" + path)
		if err != nil {
			return err
		}
		for _, m := range made.FindAllStringSubmatch(string(text), -1) {
			if want := kinds[m[1]]; !ofSeveralKinds[m[2]] && codes[m[2]].Kind() != want {
				t.Errorf("%s makes an error of the kind %s with the code %s, whose Kind is %d: say so in Code.Kind", path, m[1], m[2], codes[m[2]].Kind())
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// declared returns the codes by the names of their constants.
func declared(t *testing.T) map[string]Code {
	t.Helper()
	text, err := os.ReadFile("codes.go")
	if err != nil {
		t.Fatal(err)
	}
	codes := map[string]Code{}
	for _, m := range regexp.MustCompile(`(?m)^\s+(\w+)\s+Code\s+= "(\w+)"`).FindAllStringSubmatch(string(text), -1) {
		codes[m[1]] = Code(m[2])
	}
	return codes
}
