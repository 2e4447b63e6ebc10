package usertest

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/backplane-dev/backplane/internal/auth"
	"github.com/backplane-dev/backplane/internal/claim"
	"github.com/backplane-dev/backplane/internal/fault"
	"github.com/backplane-dev/backplane/internal/page"
	"github.com/backplane-dev/backplane/internal/uid"
	"github.com/backplane-dev/backplane/internal/user"
	"github.com/backplane-dev/backplane/internal/validate"
)

func ptr[T any](v T) *T { return &v }

func usernames(all []*user.User) string {
	var b []string
	for _, u := range all {
		b = append(b, u.Username)
	}
	return strings.Join(b, " ")
}

func testList(t *testing.T, s user.Store) {
	var all []*user.User
	for i, name := range []string{"bob", "Ann", "émile", "Zoe", "cid"} {
		all = append(all, createUser(t, s, name, at.Add(time.Duration(i)*time.Minute), auth.Customer))
	}
	if _, err := s.UpdateCountingAdmins(t.Context(), claim.None, all[3].ID, func(u *user.User, others int) error {
		return u.Apply(user.Change{Status: validate.Of(user.Deactivated), LegacyID: validate.Of(ptr("9"))}, others, at)
	}); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name string
		f    user.Filter
		o    user.OrderBy
		want string
	}{
		{"by name", user.Filter{}, user.ByUsernameAsc, "Ann bob cid émile Zoe"},
		{"by name downwards", user.Filter{}, user.ByUsernameDesc, "Zoe émile cid bob Ann"},
		{"by age", user.Filter{}, user.ByCreatedAsc, "bob Ann émile Zoe cid"},
		{"the newest first", user.Filter{}, user.ByCreatedDesc, "cid Zoe émile Ann bob"},
		{"of some ids", user.Filter{IDs: []uid.User{all[0].ID, all[4].ID, uid.NewUser(at)}}, user.ByCreatedAsc, "bob cid"},
		{"of no ids", user.Filter{IDs: []uid.User{}}, user.ByCreatedAsc, ""},
		{"in a status", user.Filter{Status: ptr(user.Deactivated)}, user.ByCreatedAsc, "Zoe"},
		{"of a name", user.Filter{Username: ptr("ANN")}, user.ByCreatedAsc, "Ann"},
		{"of an address", user.Filter{Email: ptr("BOB@example.org")}, user.ByCreatedAsc, "bob"},
		{"of a legacy id", user.Filter{LegacyID: ptr("9")}, user.ByCreatedAsc, "Zoe"},
		{"from a time on", user.Filter{CreatedAfter: &all[3].CreatedAt}, user.ByCreatedAsc, "Zoe cid"},
		{"before a time", user.Filter{CreatedBefore: &all[1].CreatedAt}, user.ByCreatedAsc, "bob"},
	} {
		got, err := s.List(t.Context(), tt.f, tt.o, page.Args{})
		if err != nil {
			t.Fatal(err)
		}
		if usernames(got.Items) != tt.want {
			t.Errorf("List %s = %q, want %q", tt.name, usernames(got.Items), tt.want)
		}
		if n, err := s.Count(t.Context(), tt.f); n != len(got.Items) || err != nil {
			t.Errorf("Count %s = %d, %v; want %d", tt.name, n, err, len(got.Items))
		}
	}
}

// testPages compares every page of every size, in every order and from every
// cursor, with what the model says. Many accounts are of one age.
func testPages(t *testing.T, s user.Store) {
	var all []*user.User
	for i := range 9 {
		all = append(all, createUser(t, s, fmt.Sprintf("user%d", (i*5)%9), at.Add(time.Duration(i/4)*time.Second)))
	}
	age := func(a, b *user.User) int { return a.CreatedAt.Compare(b.CreatedAt) }
	name := func(a, b *user.User) int { return strings.Compare(a.Username, b.Username) }
	for o, by := range map[user.OrderBy]func(a, b *user.User) int{
		user.ByCreatedAsc: age, user.ByUsernameAsc: name,
		user.ByCreatedDesc:  func(a, b *user.User) int { return age(b, a) },
		user.ByUsernameDesc: func(a, b *user.User) int { return name(b, a) },
	} {
		desc := strings.HasSuffix(string(o), "_DESC")
		model := slices.SortedFunc(slices.Values(all), func(a, b *user.User) int {
			if c := by(a, b); c != 0 {
				return c
			}
			if desc {
				a, b = b, a
			}
			return strings.Compare(string(a.ID), string(b.ID))
		})
		assertEveryPage(t, s, o, model)
	}
}

func assertEveryPage(t *testing.T, s user.Store, o user.OrderBy, model []*user.User) {
	t.Helper()
	whole, err := s.List(t.Context(), user.Filter{}, o, page.Args{})
	if err != nil {
		t.Fatal(err)
	}
	for size := range 4 {
		for i := range model {
			rest, before := model[i+1:], model[:i]
			n, m := min(size, len(rest)), min(size, len(before))
			assertPage(t, s, o, page.Args{First: &size, After: &whole.Cursors[i]}, rest[:n], n < len(rest), true)
			assertPage(t, s, o, page.Args{Last: &size, Before: &whole.Cursors[i]}, before[len(before)-m:], true, m < len(before))
		}
		for skip := 1; skip <= len(model)+1; skip++ {
			after, rest := page.SkipCursor(skip), model[min(skip, len(model)):]
			assertPage(t, s, o, page.Args{First: &size, After: &after}, rest[:min(size, len(rest))], size < len(rest), true)
		}
		assertPage(t, s, o, page.Args{First: &size}, model[:size], true, false)
		assertPage(t, s, o, page.Args{Last: &size}, model[len(model)-size:], false, true)
	}
}

func assertPage(t *testing.T, s user.Store, o user.OrderBy, args page.Args, want []*user.User, next, prev bool) {
	t.Helper()
	got, err := s.List(t.Context(), user.Filter{}, o, args)
	if err != nil {
		t.Fatal(err)
	}
	if usernames(got.Items) != usernames(want) || got.HasNext != next || got.HasPrev != prev {
		t.Errorf("%s: page = %q, next %t, prev %t; want %q, %t, %t", o, usernames(got.Items), got.HasNext, got.HasPrev, usernames(want), next, prev)
	}
}

func testOddText(t *testing.T, s user.Store) {
	for _, odd := range []string{"a\x00b", "\xff\xfe"} {
		if n, err := s.Count(t.Context(), user.Filter{Username: &odd}); n != 0 || err != nil {
			t.Errorf("Count of name %q = %d, %v", odd, n, err)
		}
		if n, err := s.Count(t.Context(), user.Filter{Email: &odd, LegacyID: &odd}); n != 0 || err != nil {
			t.Errorf("Count of address %q = %d, %v", odd, n, err)
		}
		if _, err := s.ByUsername(t.Context(), odd); !fault.Is(err, fault.UserNotFound) {
			t.Errorf("ByUsername(%q) gave %v", odd, err)
		}
	}
}
