package store_test

import (
	"strings"
	"sync/atomic"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/backplane-dev/backplane/internal/claim"
	"github.com/backplane-dev/backplane/internal/event"
	"github.com/backplane-dev/backplane/internal/order"
	"github.com/backplane-dev/backplane/internal/session"
	"github.com/backplane-dev/backplane/internal/store"
	"github.com/backplane-dev/backplane/internal/testenv"
	"github.com/backplane-dev/backplane/internal/uid"
	"github.com/backplane-dev/backplane/internal/user"
	"github.com/backplane-dev/backplane/internal/validate"
)

func fieldOf(s string) validate.Field[string] { return validate.Of(s) }

func TestDelete_forgets_the_person(t *testing.T) {
	t.Parallel()
	testenv.EachDB(t, func(t *testing.T, db *store.DB) {
		owner, other := givenUser(t, db), givenUser(t, db)
		givenProduct(t, db, "cup", 10)
		o, err := placeOrder(t.Context(), claim.None, db, owner.ID, "cup")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := db.Orders().Update(t.Context(), claim.None, o.ID, func(o *order.Order) error { return o.Cancel("my wife Jane is ill", at) }); err != nil {
			t.Fatal(err)
		}
		err = db.Sessions().UpdateAccountSessions(t.Context(), claim.None, owner.ID, at, func(h *session.AccountSessions) error {
			h.Opened = &session.Session{
				ID: uid.NewSession(at), UserID: owner.ID, Address: "192.0.2.1", Generation: 1, Nonce: []byte{1}, Version: 1,
				CreatedAt: at, UpdatedAt: at, LastUsedAt: at, ExpiresAt: at.AddDate(0, 0, 1),
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		_, err = db.Users().UpdateCountingAdmins(t.Context(), claim.None, owner.ID, func(u *user.User, others int) error { return u.Delete(others, at) })
		if err != nil {
			t.Fatal(err)
		}
		erased := append(numberedEvents(t, db, event.Filter{UserID: owner.ID}), numberedEvents(t, db, event.Filter{UserID: other.ID})...) // as readers see them at once
		eraseAll(t, db)
		for _, l := range db.Log(t) {
			erased = append(erased, &l.Event)
		}
		for _, l := range erased {
			text := strings.ToLower(string(l.Data))
			for _, personal := range []string{strings.ToLower(owner.Username) + `"`, "jane"} {
				if l.SubjectID != string(other.ID) && strings.Contains(text, personal) {
					t.Errorf("%s still says %q: %s", l.Type, personal, l.Data)
				}
			}
			if l.Type == order.EventOrderPlaced && !strings.Contains(text, o.Number[:5]) && !strings.Contains(text, strings.ToLower(o.Number)) {
				t.Errorf("the order's snapshot lost its number: %s", l.Data)
			}
		}
		for _, table := range []string{"credentials", "sessions", "api_keys"} {
			if n := db.Int(t.Context(), t, `SELECT COUNT(*) FROM `+table+` WHERE user_id = ?`, string(owner.ID)); n != 0 {
				t.Errorf("%d rows of the deleted user are left in %s", n, table)
			}
		}
		if found, err := db.Audit(t.Context()); len(found) > 0 || err != nil {
			t.Errorf("Audit = %v, %v", found, err)
		}
	})
}

func TestLegacyIDs_are_assigned_without_those_taken(t *testing.T) {
	t.Parallel()
	testenv.EachURL(t, func(t *testing.T, url string) {
		given := testenv.Open(t, store.Config{URL: url})
		taken := givenUser(t, given)
		for _, id := range []string{"2", "not a number"[:3]} {
			if _, err := given.Users().Update(t.Context(), claim.None, taken.ID, func(u *user.User) error {
				return u.Apply(user.Change{LegacyID: validate.Of(&id)}, 0, at)
			}); err != nil {
				t.Fatal(err)
			}
			taken = givenUser(t, given)
		}
		db := testenv.Open(t, store.Config{URL: url, AssignLegacyIDs: true})
		var got []string
		for range 3 {
			got = append(got, *givenUser(t, db).LegacyID)
		}
		got = append(got, *givenProduct(t, db, "cup", 10).LegacyID)
		o, err := placeOrder(t.Context(), claim.None, db, taken.ID, "cup")
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, *o.LegacyID)
		if diff := cmp.Diff([]string{"1", "3", "4", "1", "1"}, got); diff != "" {
			t.Errorf("assigned to three users, a product and an order (-want +got):\n%s", diff)
		}
		log := db.Log(t)
		for _, l := range log[len(log)-3:] {
			if !strings.Contains(string(l.Data), `"legacyId":"`) {
				t.Errorf("the snapshot of %s lacks the legacy id: %s", l.Type, l.Data)
			}
		}
	})
}

func TestAnyAdmin(t *testing.T) {
	t.Parallel()
	testenv.EachDB(t, func(t *testing.T, db *store.DB) {
		givenUser(t, db)
		if found, err := db.Users().AnyAdmin(t.Context()); found || err != nil {
			t.Errorf("AnyAdmin = %t, %v without one", found, err)
		}
		givenUser(t, db, "ADMIN")
		if found, err := db.Users().AnyAdmin(t.Context()); !found || err != nil {
			t.Errorf("AnyAdmin = %t, %v with one", found, err)
		}
	})
}

// TestCheckConfusable_reads_by_an_index explains the statement on SQLite that reads the names of STAFF and ADMIN.
func TestCheckConfusable_reads_by_an_index(t *testing.T) {
	t.Parallel()
	var query atomic.Value
	db := testenv.Open(t, store.Config{URL: testenv.SQLite(t), OnStatement: func(s string) {
		if strings.Contains(s, "roles <> 'CUSTOMER'") {
			query.Store(s)
		}
	}})
	givenUser(t, db)
	read, _ := query.Load().(string)
	if plan := explainSQLite(t, db, read); !strings.Contains(plan, "INDEX user_other_than_customer") {
		t.Errorf("the plan of %q is\n%s\nwant it to use the index", read, plan)
	}
}
