package securitylog_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/backplane-dev/backplane/internal/auth"
	"github.com/backplane-dev/backplane/internal/fault"
	"github.com/backplane-dev/backplane/internal/page"
	"github.com/backplane-dev/backplane/internal/security"
	"github.com/backplane-dev/backplane/internal/securitylog"
	"github.com/backplane-dev/backplane/internal/uid"
)

// memory is a Store that keeps what it is given, unless it fails.
type memory struct {
	mu     sync.Mutex
	err    error
	rows   []*security.Event
	sweeps int
}

func (m *memory) fail(err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.err = err
}

func (m *memory) Append(_ context.Context, events []security.Event) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.err != nil {
		return m.err
	}
	for _, e := range events {
		e.RecordedAt = time.Now()
		m.rows = append(m.rows, &e)
	}
	return nil
}

func (m *memory) Sweep(context.Context, time.Duration, int) (int, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.sweeps++
	return 0, m.err
}

func (m *memory) List(context.Context, securitylog.Filter, page.Args) (page.Page[*security.Event], error) {
	return page.Page[*security.Event]{Items: m.rows}, nil
}

func (m *memory) NewestOf(_ context.Context, user uid.User, types []security.EventType, limit int) (found []*security.Event, err error) {
	for _, e := range m.rows {
		if e.UserID == user && slices.Contains(types, e.Type) && len(found) < limit {
			found = append(found, e)
		}
	}
	return found, nil
}

func (m *memory) ReadAfter(_ context.Context, after securitylog.Position, limit int) (found []*security.Event, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, e := range m.rows {
		if len(found) < limit && (e.RecordedAt.After(after.RecordedAt) || e.RecordedAt.Equal(after.RecordedAt) && e.ID > after.ID) {
			found = append(found, e)
		}
	}
	return found, m.err
}

// stored returns how many rows there are, and how many events they stand for.
func (m *memory) stored() (rows, events int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, e := range m.rows {
		events += e.Count
	}
	return len(m.rows), events
}

// from returns the context of a request from an address.
func from(address string) context.Context {
	return auth.WithClient(context.Background(), auth.Client{Address: address})
}

// record runs a recorder while the test uses it, in a bubble.
func record(t *testing.T, m *memory, log *slog.Logger, cfg securitylog.Config, use func(*securitylog.Recorder)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		r, err := securitylog.NewRecorder(m, time.Now, log, cfg)
		if err != nil {
			t.Fatal(err)
		}
		ctx, stop := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- r.Run(ctx) }()
		use(r)
		stop()
		if err := <-ended; err != nil {
			t.Errorf("Run = %v, want nil", err)
		}
	})
}

func discard() *slog.Logger { return slog.New(slog.DiscardHandler) }

func failure(address string, user uid.User) security.Event {
	e := security.New(from(address), security.SignInFailed, "WRONG_PASSWORD", time.Now())
	e.UserID = user
	return e
}

func TestRecorder_stores_the_first_of_equal_events_at_once_and_the_number_of_the_others(t *testing.T) {
	t.Parallel()
	m, out := &memory{}, &bytes.Buffer{}
	record(t, m, slog.New(slog.NewTextHandler(out, nil)), securitylog.Config{}, func(r *securitylog.Recorder) {
		for range 100 {
			r.Record(failure("192.0.2.1", "usr_1"))
			r.Record(failure("192.0.2.1", "usr_2"))
			time.Sleep(100 * time.Millisecond) // of the bubble
		}
		if rows, events := m.stored(); rows != 2 || events != 2 {
			t.Errorf("after ten seconds there are %d rows of %d events, want the first of each account", rows, events)
		}
		time.Sleep(time.Minute)
		if rows, events := m.stored(); rows != 4 || events != 200 {
			t.Errorf("after a minute there are %d rows of %d events, want 4 of 200", rows, events)
		}
		r.Record(failure("192.0.2.1", "usr_1"))
		if r.Count(security.SignInFailed) != 201 || r.Pending() != 1 || r.Dropped() != 0 {
			t.Errorf("%d events are counted, %d pending, %d dropped", r.Count(security.SignInFailed), r.Pending(), r.Dropped())
		}
	})
	if rows, events := m.stored(); rows != 5 || events != 201 {
		t.Errorf("after the stop there are %d rows of %d events, want 5 of 201", rows, events)
	}
	rest := m.rows[2]
	if rest.Count != 99 || rest.LastAt.Sub(rest.OccurredAt) != 9800*time.Millisecond || rest.UserID == "" || rest.Address != "192.0.2.1" || rest.Detail != "WRONG_PASSWORD" {
		t.Errorf("the others are %+v", rest)
	}
	if n := strings.Count(out.String(), `level=WARN msg="security event" type=sign_in.failed`); n != 5 {
		t.Errorf("%d records are logged for 5 rows:\n%s", n, out)
	}
}

func TestRecorder_is_bounded_for_each_network_and_in_all(t *testing.T) {
	t.Parallel()
	m := &memory{}
	record(t, m, discard(), securitylog.Config{Groups: 50, NetworkRows: 10}, func(r *securitylog.Recorder) {
		for i := range 1000 { // addresses of one network, each with an account of its own
			r.Record(failure(fmt.Sprintf("2001:db8::%x", i+1), uid.User(fmt.Sprint("usr_", i))))
		}
		for i := range 20 {
			r.Record(failure(fmt.Sprintf("192.0.2.%d", i), "usr_1"))
		}
	})
	rows, events := m.stored()
	if own := 11 + 1; rows != own+20 || events != 1020 { // ten groups, the one of the network with its rest, and the others
		t.Errorf("%d rows stand for %d events, want %d for 1020", rows, events, own+20)
	}
	for _, e := range m.rows {
		if e.Count > 1 && (e.UserID != "" || e.Detail != "" || e.Address == "") {
			t.Errorf("the rest of a network is %+v, want no account", e)
		}
	}
	m = &memory{}
	record(t, m, discard(), securitylog.Config{Groups: 50}, func(r *securitylog.Recorder) {
		for i := range 5000 {
			r.Record(failure(fmt.Sprintf("10.0.%d.%d", i/250, i%250), "usr_1"))
		}
	})
	if rows, events := m.stored(); rows > 2*50+2 || events != 5000 {
		t.Errorf("%d rows stand for %d events of 5000 networks, want at most 102", rows, events)
	}
	if last := m.rows[len(m.rows)-1]; last.Address != "" || last.Count < 4000 {
		t.Errorf("the rest of all networks is %+v, want no address", last)
	}
}

func TestRecorder_keeps_what_could_not_be_stored(t *testing.T) {
	t.Parallel()
	m := &memory{err: fault.New(fault.Unavailable, "Down.")}
	record(t, m, discard(), securitylog.Config{Pending: 20}, func(r *securitylog.Recorder) {
		for i := range 30 {
			r.Record(failure(fmt.Sprintf("192.0.2.%d", i), "usr_1"))
			time.Sleep(time.Second) // of the bubble
		}
		if r.Pending() != 20 || r.Dropped() != 0 {
			t.Errorf("%d rows are pending and %d events dropped, want 20 and none: the others are counted in their groups", r.Pending(), r.Dropped())
		}
		m.fail(nil)
		time.Sleep(2 * time.Minute)
		if rows, events := m.stored(); rows != 30 || events != 30 {
			t.Errorf("after the outage there are %d rows of %d events, want 30 of 30", rows, events)
		}
	})
}

func TestRecorder_drops_rows_that_no_database_takes(t *testing.T) {
	t.Parallel()
	m := &memory{err: errors.New("broken")}
	record(t, m, discard(), securitylog.Config{}, func(r *securitylog.Recorder) {
		r.Record(failure("192.0.2.1", "usr_1"))
		time.Sleep(2 * time.Second) // of the bubble
		m.fail(nil)
		if r.Dropped() != 1 {
			t.Errorf("%d events are dropped, want 1", r.Dropped())
		}
		r.Record(failure("192.0.2.2", "usr_1"))
	})
	if rows, _ := m.stored(); rows != 1 {
		t.Errorf("%d rows are stored, want that of the second event", rows)
	}
}

func TestRecorder_counts_and_logs_what_transactions_have_stored(t *testing.T) {
	t.Parallel()
	m, out := &memory{}, &bytes.Buffer{}
	record(t, m, slog.New(slog.NewTextHandler(out, nil)), securitylog.Config{}, func(r *securitylog.Recorder) {
		r.Committed([]security.Event{security.New(from("192.0.2.1"), security.SignInSucceeded, "", time.Now())})
		r.RecordError(from("192.0.2.1"), fault.New(fault.BadInput, "No."))
		if r.Count(security.SignInSucceeded) != 1 {
			t.Errorf("%d sign-ins are counted, want 1", r.Count(security.SignInSucceeded))
		}
	})
	if rows, _ := m.stored(); rows != 0 || !strings.Contains(out.String(), `level=INFO msg="security event" type=sign_in.succeeded`) {
		t.Errorf("%d rows are stored, and the log is %q", rows, out)
	}
}

func TestRecorder_removes_expired_events_at_the_start_and_then_every_ten_minutes(t *testing.T) {
	t.Parallel()
	m := &memory{}
	record(t, m, discard(), securitylog.Config{}, func(*securitylog.Recorder) { time.Sleep(25 * time.Minute) }) // of the bubble
	if m.sweeps != 3 {
		t.Errorf("%d sweeps within 25 minutes, want 3", m.sweeps)
	}
}

func TestExport_follows_and_writes_each_event_once(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m := &memory{}
		appendOne := func(id string) {
			e := failure("192.0.2.1", "usr_1")
			e.ID = id
			if err := m.Append(t.Context(), []security.Event{e}); err != nil {
				t.Error(err)
			}
		}
		appendOne("old")
		time.Sleep(time.Hour)
		since := time.Now()
		appendOne("b")
		var written []string
		ctx, stop := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() {
			ended <- securitylog.NewExport(m, since).Follow(ctx, func(e *security.Event) error {
				written = append(written, e.ID)
				return nil
			})
		}()
		time.Sleep(30 * time.Second)
		appendOne("d")
		late := failure("192.0.2.1", "usr_1")
		late.ID, late.RecordedAt = "c", time.Now().Add(-20*time.Second) // of a transaction that commits late
		time.Sleep(10 * time.Second)
		m.mu.Lock()
		m.rows = slices.Insert(m.rows, 2, &late)
		m.mu.Unlock()
		time.Sleep(5 * time.Minute)
		appendOne("e")
		time.Sleep(2 * time.Second)
		stop()
		if err := <-ended; err != nil || strings.Join(written, "") != "bdce" {
			t.Errorf("Follow = %v and wrote %v, want b d c e", err, written)
		}
	})
}

func TestService_shows_all_to_ADMIN_and_sign_ins_to_their_user(t *testing.T) {
	t.Parallel()
	as := func(role auth.Role, c auth.Credential) context.Context {
		return auth.With(t.Context(), &auth.Principal{UserID: "usr_1", Roles: []auth.Role{role}, Credential: c})
	}
	s := securitylog.NewService(&memory{rows: []*security.Event{{ID: "a", Type: security.SignInFailed, UserID: "usr_1"}, {ID: "b", Type: security.PermissionDenied, UserID: "usr_1"}}})
	session, key := auth.SessionCredential("ses_1"), auth.APIKeyCredential("key_1", auth.UsersRead)
	for name, tt := range map[string]struct {
		ctx  context.Context
		want fault.Code
	}{
		"anonymous":                   {t.Context(), fault.Unauthenticated},
		"STAFF":                       {as(auth.Staff, session), fault.Forbidden},
		"ADMIN":                       {as(auth.Admin, session), ""},
		"a key of ADMIN":              {as(auth.Admin, key), fault.Forbidden},
		"a key of ADMIN for users":    {as(auth.Admin, auth.APIKeyCredential("key_1", auth.UsersAdmin)), ""},
		"a key of STAFF for the same": {as(auth.Staff, auth.APIKeyCredential("key_1", auth.UsersAdmin)), fault.Forbidden},
	} {
		if _, err := s.List(tt.ctx, securitylog.Filter{}, page.Args{}); (err == nil) != (tt.want == "") || err != nil && !fault.Is(err, tt.want) {
			t.Errorf("List for %s = %v, want %q", name, err, tt.want)
		}
	}
	for name, tt := range map[string]struct {
		ctx   context.Context
		user  uid.User
		limit int
		want  int
		code  fault.Code
	}{
		"the user":              {as(auth.Customer, session), "usr_1", 10, 1, ""},
		"none":                  {as(auth.Customer, session), "usr_1", 0, 0, ""},
		"more than a page":      {as(auth.Customer, session), "usr_1", 101, 0, fault.PageSizeInvalid},
		"less than none":        {as(auth.Customer, session), "usr_1", -1, 0, fault.PageSizeInvalid},
		"a key for users":       {as(auth.Customer, key), "usr_1", 10, 1, ""},
		"a key for orders":      {as(auth.Customer, auth.APIKeyCredential("key_1", auth.OrdersRead)), "usr_1", 10, 0, fault.Forbidden},
		"ADMIN of another user": {as(auth.Admin, session), "usr_2", 10, 0, ""},
		"anonymous":             {t.Context(), "usr_1", 10, 0, fault.Unauthenticated},
	} {
		found, err := s.SignIns(tt.ctx, tt.user, tt.limit)
		if len(found) != tt.want || (err == nil) != (tt.code == "") || err != nil && !fault.Is(err, tt.code) {
			t.Errorf("SignIns of %s = %v, %v; want %d, %q", name, found, err, tt.want, tt.code)
		}
	}
}
