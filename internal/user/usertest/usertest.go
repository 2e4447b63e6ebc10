// Package usertest specifies what every user.Store does, as tests that each
// implementation runs.
package usertest

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/backplane-dev/backplane/internal/auth"
	"github.com/backplane-dev/backplane/internal/claim"
	"github.com/backplane-dev/backplane/internal/fault"
	"github.com/backplane-dev/backplane/internal/uid"
	"github.com/backplane-dev/backplane/internal/user"
	"github.com/backplane-dev/backplane/internal/validate"
)

// at is the time of the tests: with digits that no database keeps.
var at = time.Date(2026, 3, 1, 12, 0, 0, 123_456_789, time.UTC)

var users = cmpopts.IgnoreUnexported(user.User{})

// Run runs the whole specification. newStore is called once for each test and
// returns an empty store.
func Run(t *testing.T, newStore func(testing.TB) user.Store) {
	t.Helper()
	for _, tt := range []struct {
		name string
		test func(*testing.T, user.Store)
	}{
		{"an account is read back as it was created", testCreate},
		{"names belong to one account, however they are spelled", testTakenNames},
		{"names of STAFF and ADMIN have no lookalikes", testConfusableNames},
		{"an account is changed and read back", testUpdate},
		{"fields that are cleared are read back empty", testClearedFields},
		{"a function that fails stores nothing", testFailingFunction},
		{"what does not exist is left out or not found", testMissing},
		{"a call is made once under its key", testIdempotencyKey},
		{"parallel changes happen one after the other", testParallelUpdates},
		{"one of the last two admins stays", testLastAdmins},
		{"a deleted account frees its names and stays readable", testDelete},
		{"accounts are filtered and sorted", testList},
		{"pages stay right under ties, in both directions", testPages},
		{"text that no database takes matches nothing", testOddText},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			tt.test(t, newStore(t))
		})
	}
}

func createUser(t testing.TB, s user.Store, name string, when time.Time, roles ...auth.Role) *user.User {
	t.Helper()
	u, err := tryCreateUser(t, s, name, when, roles...)
	if err != nil {
		t.Fatal(err)
	}
	return u
}

func tryCreateUser(t testing.TB, s user.Store, name string, when time.Time, roles ...auth.Role) (*user.User, error) {
	t.Helper()
	if len(roles) == 0 {
		roles = []auth.Role{auth.Customer}
	}
	email := strings.ReplaceAll(name, " ", ".") + "@example.org"
	u, err := user.New(user.Profile{Username: name, Email: &email, Name: "A Person"}, roles, nil, when)
	if err != nil {
		t.Fatal(err)
	}
	return s.Create(t.Context(), claim.None, u, "a hash")
}

func readUser(t testing.TB, s user.Store, id uid.User) *user.User {
	t.Helper()
	found, err := s.ByIDs(t.Context(), []uid.User{id})
	if err != nil || found[id] == nil {
		t.Fatalf("ByIDs(%s) = %v, %v", id, found, err)
	}
	return found[id]
}

func updateUser(t testing.TB, s user.Store, id uid.User, c user.Change) (*user.User, error) {
	t.Helper()
	return s.Update(t.Context(), claim.None, id, func(u *user.User) error { return u.Apply(c, 0, at.Add(time.Hour)) })
}

func assertSame(t testing.TB, what string, want, got *user.User) {
	t.Helper()
	if diff := cmp.Diff(want, got, users); diff != "" {
		t.Errorf("%s (-want +got):\n%s", what, diff)
	}
}

func testCreate(t *testing.T, s user.Store) {
	u := createUser(t, s, "Ann", at, auth.Staff, auth.Admin)
	assertSame(t, "ByIDs", u, readUser(t, s, u.ID))
	if !u.CreatedAt.Equal(at.Truncate(time.Microsecond)) || u.Version != 1 || !slices.Equal(u.Roles, []auth.Role{auth.Staff, auth.Admin}) {
		t.Errorf("created %+v", u)
	}
	got, err := s.ByUsername(t.Context(), "aNN")
	if err != nil {
		t.Fatal(err)
	}
	assertSame(t, "ByUsername", u, got)
}

func testTakenNames(t *testing.T, s user.Store) {
	createUser(t, s, "Straße", at)
	if _, err := tryCreateUser(t, s, "STRASSE", at); !fault.Is(err, user.CodeUsernameTaken) || fault.From(err).Kind() != fault.KindConflict {
		t.Errorf("a name that differs in case gave %v, want USERNAME_TAKEN", err)
	}
	bob := createUser(t, s, "bob", at)
	email := "STRAßE@example.org"
	if _, err := updateUser(t, s, bob.ID, user.Change{Email: validate.Of(&email)}); !fault.Is(err, user.CodeEmailTaken) || fault.From(err).Path[0] != "email" {
		t.Errorf("an address that differs in case gave %v, want EMAIL_TAKEN at email", err)
	}
	number := "17"
	if _, err := updateUser(t, s, bob.ID, user.Change{LegacyID: validate.Of(&number)}); err != nil {
		t.Fatal(err)
	}
	cid := createUser(t, s, "cid", at)
	if _, err := updateUser(t, s, cid.ID, user.Change{LegacyID: validate.Of(&number)}); !fault.Is(err, fault.LegacyIDTaken) {
		t.Errorf("a legacy id that is taken gave %v", err)
	}
	assertSame(t, "after the refusals", cid, readUser(t, s, cid.ID))
}

func testConfusableNames(t *testing.T, s user.Store) {
	for _, role := range []auth.Role{auth.Staff, auth.Admin} {
		name := "oscar" + strings.ToLower(string(role))
		clerk := createUser(t, s, name, at, auth.Customer, role)
		similar := strings.NewReplacer("o", "0", "a", "\u00e4").Replace(name)
		if _, err := tryCreateUser(t, s, similar, at); !fault.Is(err, user.CodeUsernameTaken) {
			t.Errorf("creating %s beside %s gave %v, want USERNAME_TAKEN", similar, name, err)
		}
		eve := createUser(t, s, "eve"+name, at)
		if _, err := updateUser(t, s, eve.ID, user.Change{Username: validate.Of(similar)}); !fault.Is(err, user.CodeUsernameTaken) || fault.From(err).Path[0] != "username" {
			t.Errorf("renaming eve to %s gave %v, want USERNAME_TAKEN at username", similar, err)
		}
		assertSame(t, "after the refusals", eve, readUser(t, s, eve.ID))
		if _, err := updateUser(t, s, clerk.ID, user.Change{Username: validate.Of(similar)}); err != nil {
			t.Errorf("renaming %s to %s gave %v", name, similar, err)
		}
	}
	for _, role := range []auth.Role{auth.Customer, auth.Service} {
		name := "zoe" + strings.ToLower(string(role))
		createUser(t, s, name, at, role)
		createUser(t, s, strings.Replace(name, "zoe", "zo\u00eb", 1), at)
	}
}

func testUpdate(t *testing.T, s user.Store) {
	u := createUser(t, s, "ann", at)
	number := "17"
	got, err := updateUser(t, s, u.ID, user.Change{Username: validate.Of("Annie"), Name: validate.Of("Ann X"), LegacyID: validate.Of(&number)})
	if err != nil {
		t.Fatal(err)
	}
	want := *u
	want.Username, want.Name, want.LegacyID, want.Version = "Annie", "Ann X", &number, 2
	want.UpdatedAt = at.Add(time.Hour).Truncate(time.Microsecond)
	assertSame(t, "Update", &want, got)
	assertSame(t, "ByIDs", &want, readUser(t, s, u.ID))
	again, err := updateUser(t, s, u.ID, user.Change{Name: validate.Of("Ann X")})
	if err != nil {
		t.Fatal(err)
	}
	assertSame(t, "an update that changes nothing", &want, again)
}

func testClearedFields(t *testing.T, s user.Store) {
	u := createUser(t, s, "ann", at)
	if _, err := updateUser(t, s, u.ID, user.Change{Email: validate.Of[*string](nil), Name: validate.Of("")}); err != nil {
		t.Fatal(err)
	}
	if got := readUser(t, s, u.ID); got.Email != nil || got.Name != "" {
		t.Errorf("after clearing, email and name are %v and %q", got.Email, got.Name)
	}
}

func testFailingFunction(t *testing.T, s user.Store) {
	u := createUser(t, s, "ann", at)
	no := errors.New("no")
	_, err := s.Update(t.Context(), claim.None, u.ID, func(u *user.User) error {
		return errors.Join(u.Apply(user.Change{Name: validate.Of("Else")}, 0, at), no)
	})
	if !errors.Is(err, no) {
		t.Errorf("Update = %v, want the function's error", err)
	}
	assertSame(t, "after a failure", u, readUser(t, s, u.ID))
}

func testMissing(t *testing.T, s user.Store) {
	u := createUser(t, s, "ann", at)
	found, err := s.ByIDs(t.Context(), []uid.User{uid.NewUser(at), u.ID})
	if err != nil || len(found) != 1 {
		t.Errorf("ByIDs = %v, %v; want the one that exists", found, err)
	}
	if _, err := s.ByUsername(t.Context(), "unknown"); !fault.Is(err, fault.UserNotFound) {
		t.Errorf("ByUsername of an unknown name gave %v", err)
	}
	if _, err := updateUser(t, s, uid.NewUser(at), user.Change{}); !fault.Is(err, fault.UserNotFound) {
		t.Errorf("updating an unknown user gave %v", err)
	}
}

func testIdempotencyKey(t *testing.T, s user.Store) {
	admin := createUser(t, s, "ann", at, auth.Admin)
	call := func(name string, body byte) (*user.User, error) {
		u, err := user.New(user.Profile{Username: name}, []auth.Role{auth.Customer}, nil, at)
		if err != nil {
			t.Fatal(err)
		}
		return s.Create(t.Context(), claim.Call{Caller: admin.ID, Key: "k", Fingerprint: [32]byte{body}}, u, "")
	}
	first, err := call("bob", 1)
	if err != nil {
		t.Fatal(err)
	}
	if again, err := call("bob", 1); err != nil || again.ID != first.ID {
		t.Errorf("the second call = %v, %v; want the first account", again, err)
	}
	for range 2 {
		u, err := user.New(user.Profile{Username: "clerk"}, []auth.Role{auth.Staff}, nil, at)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.Create(t.Context(), claim.Call{Caller: admin.ID, Key: "clerk"}, u, ""); err != nil {
			t.Errorf("a call that creates STAFF gave %v", err)
		}
	}
	if _, err := call("cid", 2); !fault.Is(err, fault.IdempotencyKeyReused) {
		t.Errorf("another call under the key gave %v", err)
	}
}

func testParallelUpdates(t *testing.T, s user.Store) {
	u := createUser(t, s, "ann", at)
	const writers = 16
	var wg sync.WaitGroup
	for i := range writers {
		wg.Go(func() {
			_, err := s.Update(t.Context(), claim.None, u.ID, func(u *user.User) error {
				return u.Apply(user.Change{Name: validate.Of(fmt.Sprint(u.Name, i))}, 0, at)
			})
			if err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	got := readUser(t, s, u.ID)
	if got.Version != 1+writers {
		t.Errorf("version = %d after %d parallel changes, want %d", got.Version, writers, 1+writers)
	}
	for i := range writers {
		if !strings.Contains(got.Name, fmt.Sprint(i)) {
			t.Errorf("the change %d is lost: %s", i, got.Name)
		}
	}
}

func testLastAdmins(t *testing.T, s user.Store) {
	a, b := createUser(t, s, "ann", at, auth.Admin), createUser(t, s, "bob", at, auth.Admin)
	var wg sync.WaitGroup
	errs := make([]error, 2)
	for i, id := range []uid.User{a.ID, b.ID} {
		wg.Go(func() {
			_, errs[i] = s.UpdateCountingAdmins(t.Context(), claim.None, id, func(u *user.User, others int) error { return u.Delete(others, at) })
		})
	}
	wg.Wait()
	if (errs[0] == nil) == (errs[1] == nil) || !fault.Is(errors.Join(errs...), user.CodeLastAdmin) {
		t.Errorf("two admins who delete each other got %v, want one success and one LAST_ADMIN", errs)
	}
}

func testDelete(t *testing.T, s user.Store) {
	u := createUser(t, s, "ann", at)
	got, err := s.UpdateCountingAdmins(t.Context(), claim.None, u.ID, func(u *user.User, others int) error { return u.Delete(others, at) })
	if err != nil {
		t.Fatal(err)
	}
	if got.Status != user.Deleted || got.Email != nil {
		t.Errorf("deleted account = %+v", got)
	}
	assertSame(t, "ByIDs", got, readUser(t, s, u.ID))
	createUser(t, s, "Ann", at)
	again, err := s.UpdateCountingAdmins(t.Context(), claim.None, u.ID, func(u *user.User, others int) error { return u.Delete(others, at) })
	if err != nil {
		t.Fatal(err)
	}
	assertSame(t, "deleting again", got, again)
}
