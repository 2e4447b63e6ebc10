package store_test

import (
	"context"
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
	"github.com/backplane-dev/backplane/internal/page"
	"github.com/backplane-dev/backplane/internal/security"
	"github.com/backplane-dev/backplane/internal/securitylog"
	"github.com/backplane-dev/backplane/internal/session"
	"github.com/backplane-dev/backplane/internal/store"
	"github.com/backplane-dev/backplane/internal/testenv"
	"github.com/backplane-dev/backplane/internal/uid"
	"github.com/backplane-dev/backplane/internal/user"
	"github.com/backplane-dev/backplane/internal/validate"
)

// refusal returns a security event with every field.
func refusal(t security.EventType, user uid.User, address string) security.Event {
	ctx := auth.WithClient(context.Background(), auth.Client{Address: address, UserAgent: "curl/8 ü"})
	e := security.New(ctx, t, "FORBIDDEN", time.Now().UTC().Truncate(time.Microsecond))
	e.UserID, e.Actor, e.SessionID, e.APIKeyID, e.RequestID, e.Count = user, "key_1", "ses_1", "key_2", "r1", 3
	return e
}

// listSecurity reads every page, two at a time.
func listSecurity(t *testing.T, db *store.DB, f securitylog.Filter) (found []security.Event) {
	t.Helper()
	two := 2
	for args := (page.Args{First: &two}); ; {
		p, err := db.SecurityEvents().List(t.Context(), f, args)
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range p.Items {
			found = append(found, *e)
		}
		if !p.HasNext {
			return found
		}
		args.After = &p.Cursors[len(p.Cursors)-1]
	}
}

func TestSecurityEvents_are_stored_once_and_listed_by_filter(t *testing.T) {
	t.Parallel()
	testenv.EachDB(t, func(t *testing.T, db *store.DB) {
		events := db.SecurityEvents()
		var all []security.Event
		for i, typ := range []security.EventType{security.SignInFailed, security.PermissionDenied, security.SignInFailed, security.HostRefused, security.SignInThrottled} {
			all = append(all, refusal(typ, uid.User(fmt.Sprint("usr_", i%2)), fmt.Sprint("192.0.2.", i/3)))
		}
		for range 2 { // a store whose outcome was unknown is tried again
			for _, e := range all {
				if err := events.Append(t.Context(), []security.Event{e}); err != nil {
					t.Fatal(err)
				}
			}
		}
		newest := slices.Clone(all)
		slices.Reverse(newest)
		found := listSecurity(t, db, securitylog.Filter{})
		if diff := cmp.Diff(newest, found, cmpopts.IgnoreFields(security.Event{}, "RecordedAt")); diff != "" {
			t.Fatalf("the events differ (-want +got):\n%s", diff)
		}
		one, address, none := uid.User("usr_1"), "192.0.2.1", "\x00"
		since := found[2].RecordedAt
		for name, tt := range map[string]struct {
			filter securitylog.Filter
			want   []int // indexes of found
		}{
			"type":                {securitylog.Filter{Type: security.SignInFailed}, []int{2, 4}},
			"user":                {securitylog.Filter{UserID: &one}, []int{1, 3}},
			"address":             {securitylog.Filter{Address: &address}, []int{0, 1}},
			"since":               {securitylog.Filter{Since: &since}, []int{0, 1, 2}},
			"until":               {securitylog.Filter{Until: &since}, []int{3, 4}},
			"type and user":       {securitylog.Filter{Type: security.PermissionDenied, UserID: &one}, []int{3}},
			"no possible address": {securitylog.Filter{Address: &none}, nil},
		} {
			var want []string
			for _, i := range tt.want {
				want = append(want, found[i].ID)
			}
			var got []string
			for _, e := range listSecurity(t, db, tt.filter) {
				got = append(got, e.ID)
			}
			if !slices.Equal(got, want) {
				t.Errorf("by %s the list is %v, want %v", name, got, want)
			}
		}
		own, err := events.NewestOf(t.Context(), "usr_0", security.SignIns(), 2)
		if err != nil || len(own) != 2 || own[0].ID != found[0].ID || own[1].ID != found[2].ID {
			t.Errorf("NewestOf = %v, %v; want the two newest of the user", own, err)
		}
		after := securitylog.Position{RecordedAt: found[4].RecordedAt, ID: found[4].ID}
		if rest, err := events.ReadAfter(t.Context(), after, 2); err != nil || len(rest) != 2 || rest[0].ID != found[3].ID || rest[1].ID != found[2].ID {
			t.Errorf("ReadAfter the first = %v, %v; want the next two", rest, err)
		}
	})
}

func TestSecurityEvents_are_removed_after_their_retention(t *testing.T) {
	t.Parallel()
	testenv.EachDB(t, func(t *testing.T, db *store.DB) {
		events := db.SecurityEvents()
		var old []security.Event
		for range 5 {
			old = append(old, refusal(security.SignInFailed, "usr_1", "192.0.2.1"))
		}
		if err := events.Append(t.Context(), old); err != nil {
			t.Fatal(err)
		}
		db.Exec(t, `UPDATE security_events SET recorded_at = ?`, time.Now().UTC().Add(-91*24*time.Hour).Truncate(time.Microsecond))
		fresh := refusal(security.SignInFailed, "usr_1", "192.0.2.1")
		if err := events.Append(t.Context(), []security.Event{fresh}); err != nil {
			t.Fatal(err)
		}
		var removed []int
		for range 3 {
			n, err := events.Sweep(t.Context(), 90*24*time.Hour, 3)
			if err != nil {
				t.Fatal(err)
			}
			removed = append(removed, n)
		}
		if left := listSecurity(t, db, securitylog.Filter{}); !slices.Equal(removed, []int{3, 2, 0}) || len(left) != 1 || left[0].ID != fresh.ID {
			t.Errorf("Sweep removed %v and left %v, want 3, 2 and the fresh event", removed, left)
		}
	})
}

// TestSecurityEvents_of_changes_commit_with_them changes credentials and rights, and has a change fail.
func TestSecurityEvents_of_changes_commit_with_them(t *testing.T) {
	t.Parallel()
	testenv.EachDB(t, func(t *testing.T, db *store.DB) {
		var committed []security.EventType
		db = db.WithHooks(store.Hooks{Secured: func(all []security.Event) {
			for _, e := range all {
				committed = append(committed, e.Type)
			}
		}})
		u, err := user.New(user.Profile{Username: "ada"}, []auth.Role{auth.Customer}, nil, time.Now())
		if err != nil {
			t.Fatal(err)
		}
		if _, err := db.Users().Create(t.Context(), claim.None, u, "hash"); err != nil {
			t.Fatal(err)
		}
		ctx := auth.With(t.Context(), &auth.Principal{UserID: "usr_admin", Credential: auth.SessionCredential("ses_admin")})
		raise := func(fail error) error {
			_, err := db.Users().UpdateCountingAdmins(ctx, claim.None, u.ID, func(u *user.User, _ int) error {
				return errors.Join(u.Apply(user.Change{Roles: validate.Of([]auth.Role{auth.Staff, auth.Admin})}, 1, time.Now()), fail)
			})
			return err
		}
		if err := raise(errors.New("refused")); err == nil || len(listSecurity(t, db, securitylog.Filter{})) != 0 || len(committed) != 0 {
			t.Errorf("a change that failed with %v left %v and called the hook with %v", err, listSecurity(t, db, securitylog.Filter{}), committed)
		}
		if err := raise(nil); err != nil {
			t.Fatal(err)
		}
		err = db.Sessions().UpdateCredentials(ctx, claim.None, u.ID, time.Now(), func(a *session.Credentials) error {
			a.PasswordHash, a.PasswordVersion = "other", a.PasswordVersion+1
			a.Security = append(a.Security, security.New(ctx, security.PasswordChanged, "", time.Now()))
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		found := listSecurity(t, db, securitylog.Filter{})
		if len(found) != 2 || found[1].Type != security.UserRolesChanged || found[1].Detail != "STAFF,ADMIN" || found[1].UserID != u.ID || found[1].Actor != "usr_admin" || found[1].SessionID != "ses_admin" {
			t.Errorf("the security events are %+v", found)
		}
		if !slices.Equal(committed, []security.EventType{security.UserRolesChanged, security.PasswordChanged}) {
			t.Errorf("the hook was called with %v", committed)
		}
	})
}

// TestSecurityEvents_are_read_by_an_index explains the statements of each read on SQLite, whose plans do not depend on
// the values.
func TestSecurityEvents_are_read_by_an_index(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	var last string
	db := testenv.Open(t, store.Config{URL: testenv.SQLite(t), OnStatement: func(query string) {
		mu.Lock()
		defer mu.Unlock()
		if strings.Contains(query, "security_events") {
			last = query
		}
	}})
	events, first, at := db.SecurityEvents(), 10, time.Now()
	who, address := uid.User("usr_1"), "192.0.2.1"
	list := func(f securitylog.Filter) func() error {
		return func() error {
			_, err := events.List(t.Context(), f, page.Args{First: &first})
			return err
		}
	}
	for index, read := range map[string]func() error{
		"recorded_at_id":         list(securitylog.Filter{Since: &at}),
		"type_recorded_at_id":    list(securitylog.Filter{Type: security.SignInFailed, Until: &at}),
		"user_id_recorded_at_id": list(securitylog.Filter{UserID: &who}),
		"address_recorded_at_id": list(securitylog.Filter{Address: &address}),
		"user_id_type_recorded_at_id": func() error {
			_, err := events.NewestOf(t.Context(), who, security.SignIns(), first)
			return err
		},
		"recorded_at_id ": func() error {
			_, err := events.ReadAfter(t.Context(), securitylog.Position{RecordedAt: at}, first)
			return err
		},
		" recorded_at_id": func() error {
			_, err := events.Sweep(t.Context(), time.Hour, first)
			return err
		},
	} {
		if err := read(); err != nil {
			t.Fatal(err)
		}
		mu.Lock()
		query := last
		mu.Unlock()
		plan := explainSQLite(t, db, query)
		if !strings.Contains(plan, "INDEX securityevent_"+strings.TrimSpace(index)) || strings.Contains(plan, "TEMP B-TREE") {
			t.Errorf("the plan of %s is\n%s\nwant it to use the index %s", query, plan, index)
		}
	}
}

func explainSQLite(t *testing.T, db *store.DB, query string) string {
	t.Helper()
	conn, err := db.Conn(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	args := make([]any, strings.Count(query, "?"))
	for i := range args {
		args[i] = 1
	}
	rows, err := conn.QueryContext(t.Context(), "EXPLAIN QUERY PLAN "+query, args...)
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	var plan []string
	for rows.Next() {
		var id, parent, unused int
		var detail string
		if err := rows.Scan(&id, &parent, &unused, &detail); err != nil {
			t.Fatal(err)
		}
		plan = append(plan, detail)
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
	return strings.Join(plan, "\n")
}
