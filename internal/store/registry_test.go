package store_test

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/backplane-dev/backplane/internal/claim"
	"github.com/backplane-dev/backplane/internal/event"
	"github.com/backplane-dev/backplane/internal/eventlog"
	"github.com/backplane-dev/backplane/internal/fault"
	"github.com/backplane-dev/backplane/internal/lease"
	"github.com/backplane-dev/backplane/internal/registry"
	"github.com/backplane-dev/backplane/internal/store"
	"github.com/backplane-dev/backplane/internal/testenv"
	"github.com/backplane-dev/backplane/internal/uid"
)

func givenService(t testing.TB, db *store.DB, name string) *registry.Service {
	t.Helper()
	s, err := db.Registry().PutService(t.Context(), claim.None, name, func(s *registry.Service) (*registry.Service, error) {
		return registry.NewService(registry.ServiceInput{Name: name, Tags: []string{"x"}, Metadata: map[string]string{"k": "v"}, HealthCheck: &registry.HealthCheck{Path: "/h"}}, at)
	})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func registerInstance(ctx context.Context, db *store.DB, service, id string, in registry.InstanceInput) (*registry.Instance, error) {
	in.InstanceID, in.URL = id, "http://127.0.0.1:1"
	return db.Registry().PutInstance(ctx, claim.None, service, id, func(s *registry.Service, i *registry.Instance) (*registry.Instance, error) {
		if i == nil {
			return registry.NewInstance(s.ID, in, at)
		}
		return i, i.Register(in, at)
	})
}

func givenInstance(t testing.TB, db *store.DB, service, id string) *registry.Instance {
	t.Helper()
	i, err := registerInstance(t.Context(), db, service, id, registry.InstanceInput{TTL: 10 * time.Second, Metadata: map[string]string{"zone": "a"}})
	if err != nil {
		t.Fatal(err)
	}
	return i
}

// ageInstances lets time go by for all leases.
func ageInstances(t testing.TB, db *store.DB, d time.Duration) {
	t.Helper()
	leases, err := db.Registry().Leases(t.Context(), instancesOf(t, db))
	if err != nil {
		t.Fatal(err)
	}
	for id, l := range leases {
		db.Exec(t, `UPDATE leases SET expires_at = ? WHERE instance_id = ?`, l.ExpiresAt.Add(-d), string(id))
	}
}

func instancesOf(t testing.TB, db *store.DB) (ids []uid.Instance) {
	t.Helper()
	_, all, err := db.Registry().Load(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, i := range all {
		ids = append(ids, i.ID)
	}
	return ids
}

func TestRegistry_reads_what_it_wrote(t *testing.T) {
	t.Parallel()
	testenv.EachDB(t, func(t *testing.T, db *store.DB) {
		s, i := givenService(t, db, "echo"), givenInstance(t, db, "echo", "a")
		foundS, foundI, err := db.Registry().Find(t.Context(), "echo", "a")
		if err != nil || foundS == nil || foundI == nil {
			t.Fatalf("Find = %v, %v, %v", foundS, foundI, err)
		}
		if foundS.ID != s.ID || *foundS.HealthCheck != *s.HealthCheck || foundS.Metadata["k"] != "v" || foundS.Tags[0] != "x" {
			t.Errorf("the service reads %+v, want %+v", foundS, s)
		}
		if foundI.ID != i.ID || foundI.Incarnation != i.Incarnation || foundI.TTL != i.TTL || foundI.Status != registry.Passing || !foundI.StatusSince.Equal(i.StatusSince) {
			t.Errorf("the instance reads %+v, want %+v", foundI, i)
		}
		log := db.Log(t)
		if len(log) != 2 || log[1].Type != registry.EventInstanceRegistered || len(log[1].Touched) != 1 {
			t.Errorf("the log has %+v", log)
		}
		// On PostgreSQL this test runs no sequencer.
		events, err := db.Events().Read(t.Context(), event.Filter{ServiceID: s.ID}, eventlog.Span{Limit: 10})
		if err != nil || len(events) != map[string]int{"sqlite3": 2, "postgres": 0}[db.Dialect()] {
			t.Errorf("%d events concern the service: %v", len(events), err)
		}
		if _, err := db.Registry().ChangeService(t.Context(), claim.None, s.ID, func(s *registry.Service) error { s.Deregister(at); return nil }); err != nil {
			t.Fatal(err)
		}
		if n := db.Int(t.Context(), t, `SELECT COUNT(*) FROM leases`) + db.Int(t.Context(), t, `SELECT COUNT(*) FROM instances`); n != 0 {
			t.Errorf("%d rows of instances are left after their service", n)
		}
		if _, err := registerInstance(t.Context(), db, "echo", "a", registry.InstanceInput{}); !fault.Is(err, registry.CodeServiceNotFound) {
			t.Errorf("an instance of a deregistered service gave %v", err)
		}
	})
}

func TestRegistry_has_one_row_of_an_instance_however_many_register_it(t *testing.T) {
	t.Parallel()
	testenv.EachDB(t, func(t *testing.T, db *store.DB) {
		givenService(t, db, "echo")
		var wg sync.WaitGroup
		seen := make(chan int64, 8)
		for range 8 {
			wg.Go(func() {
				i, err := registerInstance(t.Context(), db, "echo", "a", registry.InstanceInput{})
				if err != nil {
					t.Error(err)
					return
				}
				seen <- i.Incarnation
			})
		}
		wg.Wait()
		close(seen)
		different := map[int64]bool{}
		for n := range seen {
			different[n] = true
		}
		if rows := db.Int(t.Context(), t, `SELECT COUNT(*) FROM instances`); rows != 1 || len(different) != 8 {
			t.Errorf("%d rows, %d incarnations of 8 starts", rows, len(different))
		}
	})
}

func TestRegistry_Renew(t *testing.T) {
	t.Parallel()
	testenv.EachDB(t, func(t *testing.T, db *store.DB) {
		givenService(t, db, "echo")
		a, b := givenInstance(t, db, "echo", "a"), givenInstance(t, db, "echo", "b")
		ageInstances(t, db, time.Hour)
		renewals := []registry.Renewal{
			{Instance: b.ID, Incarnation: b.Incarnation - 1, TTL: b.TTL, Inflight: 7},
			{Instance: a.ID, Incarnation: a.Incarnation, TTL: a.TTL, Inflight: 5, Age: time.Second},
			{Instance: uid.NewInstance(at), Incarnation: 1, TTL: time.Minute},
		}
		before := len(db.Log(t))
		if err := db.Registry().Renew(t.Context(), renewals); err != nil {
			t.Fatal(err)
		}
		leases, err := db.Registry().Leases(t.Context(), []uid.Instance{a.ID, b.ID})
		if err != nil {
			t.Fatal(err)
		}
		left := time.Until(leases[a.ID].ExpiresAt)
		if leases[a.ID].Inflight != 5 || left < 5*time.Second || left > 9500*time.Millisecond {
			t.Errorf("the renewed lease is %+v, %v left, want 9 s and 5 calls", leases[a.ID], left)
		}
		if l := leases[b.ID]; l.Inflight != 0 || time.Until(l.ExpiresAt) > 0 {
			t.Errorf("a renewal of an earlier start changed the lease to %+v", l)
		}
		if n := db.Int(t.Context(), t, `SELECT COUNT(*) FROM leases`); n != 2 || len(db.Log(t)) != before {
			t.Errorf("%d leases and %d new events, want 2 and none", n, len(db.Log(t))-before)
		}
	})
}

// TestRegistry_renews_ten_thousand_with_few_statements is what makes heartbeats
// cheap: 10,000 instances that renew every 10 s are 1,000 rows in one statement a second.
func TestRegistry_renews_many_with_one_statement(t *testing.T) {
	t.Parallel()
	testenv.EachURL(t, func(t *testing.T, url string) {
		statements := 0
		db := testenv.Open(t, store.Config{URL: url, OnStatement: func(string) { statements++ }})
		givenService(t, db, "echo")
		var renewals []registry.Renewal
		for n := range 1000 {
			renewals = append(renewals, registry.Renewal{Instance: uid.NewInstance(at.Add(time.Duration(n))), Incarnation: 1, TTL: time.Minute})
		}
		first := givenInstance(t, db, "echo", "a")
		renewals[500].Instance, renewals[500].Incarnation = first.ID, first.Incarnation
		statements = 0
		if err := db.Registry().Renew(t.Context(), renewals); err != nil || statements != 1 {
			t.Errorf("1000 renewals took %d statements: %v", statements, err)
		}
	})
}

const reconcilerLease = "registry.keeper"

func evaluateService(t testing.TB, db *store.DB, held lease.Lease, s *registry.Service) (map[string]registry.LeaseState, error) {
	t.Helper()
	got := map[string]registry.LeaseState{}
	_, _, err := db.Registry().EvaluateService(t.Context(), held, s.ID, time.Second, 10, func(_ *registry.Service, all []*registry.Instance, states map[uid.Instance]registry.LeaseState) error {
		for _, i := range all {
			v := states[i.ID]
			got[i.InstanceID] = v
			if v.Overdue {
				i.ExpireLease(time.Now())
			}
		}
		return nil
	})
	return got, err
}

func TestRegistry_judges_by_the_clock_of_the_database(t *testing.T) {
	t.Parallel()
	testenv.EachDB(t, func(t *testing.T, db *store.DB) {
		s := givenService(t, db, "echo")
		old := givenInstance(t, db, "echo", "old")
		ageInstances(t, db, 12*time.Second)
		givenInstance(t, db, "echo", "new")
		grace := givenInstance(t, db, "echo", "grace")
		db.Exec(t, `UPDATE leases SET expires_at = ? WHERE instance_id = ?`, time.Now().UTC().Add(-200*time.Millisecond).Truncate(time.Microsecond), string(grace.ID))
		mine := acquireLease(t, db, reconcilerLease, "me")
		ids, err := db.Registry().DueServices(t.Context(), time.Second, 10, 100)
		if err != nil || len(ids) != 1 || ids[0] != s.ID {
			t.Fatalf("DueServices = %v, %v, want the service", ids, err)
		}
		got, err := evaluateService(t, db, mine, s)
		want := map[string]registry.LeaseState{"old": {Overdue: true}, "new": {Current: true}, "grace": {}}
		if err != nil || fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("the states are %v, %v, want %v", got, err, want)
		}
		if ids, _ := db.Registry().DueServices(t.Context(), time.Minute, 10, 100); len(ids) != 0 {
			t.Errorf("an evaluated service is due again: %v", ids)
		}
		if err := db.Registry().Renew(t.Context(), []registry.Renewal{{Instance: old.ID, Incarnation: old.Incarnation, TTL: old.TTL}}); err != nil {
			t.Fatal(err)
		}
		if ids, _ := db.Registry().DueServices(t.Context(), time.Minute, 10, 100); len(ids) != 1 {
			t.Errorf("a service whose instance renewed is not due")
		}
		db.Exec(t, `UPDATE instances SET late_since = ? WHERE id = ?`, time.Now().UTC().Add(-101*time.Second).Truncate(time.Microsecond), string(old.ID))
		if got, err := evaluateService(t, db, mine, s); err != nil || !got["old"].RemovalDue {
			t.Errorf("after more than ten times its lease the lease state is %+v, %v", got["old"], err)
		}
	})
}

func TestRegistry_returns_changed_services_before_degraded_ones(t *testing.T) {
	t.Parallel()
	testenv.EachDB(t, func(t *testing.T, db *store.DB) {
		const limit = 5
		for n := range 2 * limit {
			s := givenService(t, db, fmt.Sprint("degraded", n))
			db.Exec(t, `UPDATE services SET doubted_since = ? WHERE id = ?`, time.Now().UTC().Truncate(time.Microsecond), string(s.ID))
			i := givenInstance(t, db, s.Name, "kept")
			db.Exec(t, `UPDATE instances SET late_since = ? WHERE id = ?`, time.Now().UTC().Add(-time.Hour).Truncate(time.Microsecond), string(i.ID))
			db.Exec(t, `DELETE FROM leases WHERE instance_id = ?`, string(i.ID))
		}
		late := givenService(t, db, "late")
		givenInstance(t, db, "late", "a")
		ageInstances(t, db, 12*time.Second)
		seen := map[uid.Service]int{}
		for range 100 {
			ids, err := db.Registry().DueServices(t.Context(), time.Second, 10, limit)
			if err != nil || len(ids) != limit {
				t.Fatalf("DueServices = %v, %v, want %d", ids, err, limit)
			}
			for _, id := range ids {
				seen[id]++
			}
		}
		if seen[late.ID] != 100 || len(seen) != 1+2*limit {
			t.Errorf("in 100 reads of %d due services the late service was %d times, and %d of %d services were at all", limit, seen[late.ID], len(seen), 1+2*limit)
		}
	})
}

func TestRegistry_evaluates_only_under_the_lease(t *testing.T) {
	t.Parallel()
	testenv.EachDB(t, func(t *testing.T, db *store.DB) {
		s := givenService(t, db, "echo")
		givenInstance(t, db, "echo", "a")
		ageInstances(t, db, time.Hour)
		mine := acquireLease(t, db, reconcilerLease, "me")
		expireLeases(t, db)
		if _, err := evaluateService(t, db, mine, s); !errors.Is(err, lease.ErrLost) {
			t.Errorf("evaluating after the lease expired gave %v, want that it is lost", err)
		}
		acquireLease(t, db, reconcilerLease, "another")
		if err := db.Registry().ExtendAllLeases(t.Context(), mine); !errors.Is(err, lease.ErrLost) {
			t.Errorf("extending under another owner's lease gave %v, want that it is lost", err)
		}
		if n := db.Int(t.Context(), t, `SELECT COUNT(*) FROM instances WHERE status = 'CRITICAL'`); n != 0 {
			t.Errorf("%d instances were evaluated", n)
		}
	})
}

func TestRegistry_Grant_gives_every_lease_a_whole_time(t *testing.T) {
	t.Parallel()
	testenv.EachDB(t, func(t *testing.T, db *store.DB) {
		givenService(t, db, "echo")
		a := givenInstance(t, db, "echo", "a")
		ageInstances(t, db, time.Hour)
		if err := db.Registry().ExtendAllLeases(t.Context(), acquireLease(t, db, reconcilerLease, "me")); err != nil {
			t.Fatal(err)
		}
		leases, err := db.Registry().Leases(t.Context(), []uid.Instance{a.ID})
		if left := time.Until(leases[a.ID].ExpiresAt); err != nil || left < 5*time.Second || left > 10500*time.Millisecond {
			t.Errorf("the lease has %v left, %v, want its 10 s", left, err)
		}
	})
}

func TestRegistry_Trade(t *testing.T) {
	t.Parallel()
	testenv.EachDB(t, func(t *testing.T, db *store.DB) {
		r, x, y := db.Registry(), uid.NewInstance(at), uid.NewInstance(at)
		sync := func(node string, calls map[uid.Instance]int, out ...registry.Outcome) (map[uid.Instance]int, []registry.Outcome) {
			t.Helper()
			elsewhere, in, err := r.SyncPicks(t.Context(), node, time.Minute, calls, out)
			if err != nil {
				t.Fatal(err)
			}
			return elsewhere, in
		}
		forB := registry.Outcome{Pick: "p1", Node: "b", OK: true, Took: 12 * time.Millisecond}
		sync("a", map[uid.Instance]int{x: 3}, forB)
		sync("c", map[uid.Instance]int{x: 1, y: 2}, forB) // the same again, by another way
		elsewhere, in := sync("b", map[uid.Instance]int{y: 100})
		if elsewhere[x] != 4 || elsewhere[y] != 2 {
			t.Errorf("b hears of %v elsewhere, want 4 and 2", elsewhere)
		}
		if len(in) != 1 || in[0] != forB {
			t.Errorf("b gets the outcomes %v, want one", in)
		}
		if _, in := sync("b", nil); len(in) != 0 {
			t.Errorf("b gets %v again", in)
		}
		db.Exec(t, `UPDATE pickers SET expires_at = ? WHERE id = 'a'`, time.Now().UTC().Add(-time.Second).Truncate(time.Microsecond))
		if elsewhere, _ := sync("b", nil); elsewhere[x] != 1 {
			t.Errorf("after a is gone b hears of %v", elsewhere)
		}
	})
}

func TestPurgeExpired_removes_services_that_ended_long_ago(t *testing.T) {
	t.Parallel()
	testenv.EachURL(t, func(t *testing.T, url string) {
		now := at
		db := testenv.Open(t, store.Config{URL: url, Now: func() time.Time { return now }})
		live, ended, lately := givenService(t, db, "live"), givenService(t, db, "ended"), givenService(t, db, "lately")
		for s, when := range map[*registry.Service]time.Time{ended: at.Add(time.Minute), lately: at.Add(time.Hour)} {
			if _, err := db.Registry().ChangeService(t.Context(), claim.None, s.ID, func(s *registry.Service) error { s.Deregister(when); return nil }); err != nil {
				t.Fatal(err)
			}
		}
		now = at.Add(90*24*time.Hour + 30*time.Minute)
		if n, err := db.PurgeExpired(t.Context()); n != 1 || err != nil {
			t.Errorf("PurgeExpired = %d, %v, want the one that ended 90 days ago", n, err)
		}
		if n := db.Int(t.Context(), t, `SELECT COUNT(*) FROM services WHERE id IN (?, ?)`, string(live.ID), string(lately.ID)); n != 2 {
			t.Errorf("%d services are left, want the live one and the one that ended lately", n)
		}
		if again := givenService(t, db, "ended"); again.ID == ended.ID || again.Version != 1 {
			t.Errorf("the service that is registered under the name again is %+v, want another", again)
		}
	})
}

func TestRegistry_RecordChecks(t *testing.T) {
	t.Parallel()
	testenv.EachDB(t, func(t *testing.T, db *store.DB) {
		givenService(t, db, "echo")
		a, b := givenInstance(t, db, "echo", "a"), givenInstance(t, db, "echo", "b")
		mine := acquireLease(t, db, reconcilerLease, "me")
		check := func() [2]*registry.CheckReport {
			t.Helper()
			leases, err := db.Registry().Leases(t.Context(), []uid.Instance{a.ID, b.ID})
			if err != nil || !leases[a.ID].ExpiresAt.After(leases[a.ID].SeenAt) {
				t.Fatalf("the leases read %+v, %v", leases, err)
			}
			return [2]*registry.CheckReport{leases[a.ID].Check, leases[b.ID].Check}
		}
		if got := check(); got[0] != nil || got[1] != nil {
			t.Fatalf("instances that were never checked have the checks %v", got)
		}
		before := len(db.Log(t))
		for _, want := range []registry.CheckReport{
			{At: at.Truncate(time.Microsecond), Passed: true, Took: 12 * time.Millisecond, Output: "status 200: fine"}, {At: at.Add(time.Second).Truncate(time.Microsecond), Took: time.Second, Output: "no answer"},
		} {
			reports := map[registry.InstanceStart]registry.CheckReport{
				{Instance: a.ID, Incarnation: a.Incarnation}: want, {Instance: b.ID, Incarnation: b.Incarnation - 1}: want, {Instance: uid.NewInstance(at), Incarnation: 1}: want,
			}
			if err := db.Registry().RecordChecks(t.Context(), mine, reports); err != nil {
				t.Fatal(err)
			}
			if got := check(); got[0] == nil || *got[0] != want || got[1] != nil {
				t.Errorf("the checks read %+v, want %+v and none of another start", got, want)
			}
		}
		if err := db.Registry().Renew(t.Context(), []registry.Renewal{{Instance: a.ID, Incarnation: a.Incarnation, TTL: a.TTL}}); err != nil || check()[0] == nil {
			t.Errorf("a renewal removes the check: %v", err)
		}
		if n := len(db.Log(t)); n != before {
			t.Errorf("checks are %d events", n-before)
		}
		if givenInstance(t, db, "echo", "a"); check()[0] != nil {
			t.Errorf("the check of the former start is shown: %+v", check()[0])
		}
		lost := mine
		lost.Epoch--
		if err := db.Registry().RecordChecks(t.Context(), lost, map[registry.InstanceStart]registry.CheckReport{{Instance: b.ID, Incarnation: b.Incarnation}: {At: at}}); !errors.Is(err, lease.ErrLost) || check()[1] != nil {
			t.Errorf("without the lease of the loop checks are stored: %v", err)
		}
	})
}
