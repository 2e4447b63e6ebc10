package store_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/backplane-dev/backplane/internal/auth"
	"github.com/backplane-dev/backplane/internal/claim"
	"github.com/backplane-dev/backplane/internal/page"
	"github.com/backplane-dev/backplane/internal/store"
	"github.com/backplane-dev/backplane/internal/testenv"
	"github.com/backplane-dev/backplane/internal/user"
)

// shop is a database with the model of one of its lists: accounts by age, of
// which many are equally old.
type shop struct {
	db   *store.DB
	rnd  *rand.Rand
	desc bool
	rows []*user.User // in the order of the list
}

func (s *shop) order() user.OrderBy {
	if s.desc {
		return user.ByCreatedDesc
	}
	return user.ByCreatedAsc
}

func (s *shop) compareUsers(a, b *user.User) int {
	c := a.CreatedAt.Compare(b.CreatedAt)
	if c == 0 {
		c = strings.Compare(string(a.ID), string(b.ID))
	}
	if s.desc {
		return -c
	}
	return c
}

func (s *shop) insertUser(t *testing.T) {
	t.Helper()
	when := at.Add(time.Duration(s.rnd.IntN(5)) * time.Second)
	u, err := user.New(user.Profile{Username: fmt.Sprint("u", names.Add(1))}, []auth.Role{auth.Customer}, nil, when)
	if err != nil {
		t.Fatal(err)
	}
	if u, err = s.db.Users().Create(t.Context(), claim.None, u, ""); err != nil {
		t.Fatal(err)
	}
	i, _ := slices.BinarySearchFunc(s.rows, u, s.compareUsers)
	s.rows = slices.Insert(s.rows, i, u)
}

func (s *shop) removeUser(t *testing.T) {
	t.Helper()
	if len(s.rows) == 0 {
		return
	}
	i := s.rnd.IntN(len(s.rows))
	s.db.Exec(t, `DELETE FROM users WHERE id = ?`, string(s.rows[i].ID))
	s.rows = slices.Delete(s.rows, i, i+1)
}

// walkPages reads from one end to the other in pages of random size, while rows come
// and go, and compares each page with the rows that lie behind the last one.
func (s *shop) walkPages(t *testing.T, backward bool) {
	t.Helper()
	var last *user.User
	var cursor *string
	for {
		for range s.rnd.IntN(3) {
			if s.rnd.IntN(2) == 0 {
				s.insertUser(t)
			} else {
				s.removeUser(t)
			}
		}
		size := 1 + s.rnd.IntN(4)
		args := page.Args{First: &size, After: cursor}
		if backward {
			args = page.Args{Last: &size, Before: cursor}
		}
		got, err := s.db.Users().List(t.Context(), user.Filter{}, s.order(), args)
		if err != nil {
			t.Fatal(err)
		}
		want, more := s.expectedPage(last, size, backward)
		if diff := cmp.Diff(usernamesOf(want), usernamesOf(got.Items)); diff != "" {
			t.Fatalf("page of %d, backward %t (-want +got):\n%s", size, backward, diff)
		}
		if hasMore := got.HasNext && !backward || got.HasPrev && backward; hasMore != more {
			t.Fatalf("page of %d, backward %t: more = %t, want %t", size, backward, hasMore, more)
		}
		if len(got.Items) == 0 || !more {
			return
		}
		edge := len(got.Items) - 1
		if backward {
			edge = 0
		}
		last, cursor = got.Items[edge], &got.Cursors[edge]
	}
}

// expectedPage is what the model shows behind a row, which may be gone by now.
func (s *shop) expectedPage(last *user.User, size int, backward bool) (rows []*user.User, more bool) {
	rows = s.rows
	if last != nil {
		i, found := slices.BinarySearchFunc(s.rows, last, s.compareUsers)
		if backward {
			rows = rows[:i]
		} else {
			if found {
				i++
			}
			rows = rows[i:]
		}
	}
	n := min(size, len(rows))
	if backward {
		return rows[len(rows)-n:], n < len(rows)
	}
	return rows[:n], n < len(rows)
}

func usernamesOf(all []*user.User) (names []string) {
	for _, u := range all {
		names = append(names, u.Username)
	}
	return names
}

func TestPages_stay_correct_while_rows_come_and_go(t *testing.T) {
	t.Parallel()
	testenv.EachDB(t, func(t *testing.T, db *store.DB) {
		seed := rand.Uint64()
		t.Logf("seed %d", seed)
		s := &shop{db: db, rnd: rand.New(rand.NewPCG(seed, 0))}
		for range 30 {
			s.insertUser(t)
		}
		for i := range 12 {
			s.desc = i%2 == 1
			slices.SortFunc(s.rows, s.compareUsers)
			s.walkPages(t, i%4 >= 2)
		}
	})
}
