package accounts

import (
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/backplane-dev/backplane/e2e/harness"
	"github.com/backplane-dev/backplane/internal/testenv"
)

const setPassword = `mutation($in: SetPasswordInput!) { setPassword(input: $in) { user { username } userErrors { code path } } }`

const newPassword = "a quite new password"

// setPasswordOutcome calls setPassword and returns the code of its error, or the name of the account.
func setPasswordOutcome(t *testing.T, c harness.Caller, in harness.Fields) string {
	t.Helper()
	a, err := c.Send(t.Context(), setPassword, harness.Input(in))
	if err != nil {
		t.Fatal(err)
	}
	if len(a.Errors) > 0 {
		return fmt.Sprint(a.Errors[0].Extensions["code"])
	}
	if code := harness.Text(a.Data, "setPassword", "userErrors", 0, "code"); code != "" {
		return code
	}
	return harness.Text(a.Data, "setPassword", "user", "username")
}

func isSignedIn(t *testing.T, c harness.Caller) bool {
	t.Helper()
	a, err := c.Send(t.Context(), `{ viewer { user { id } } }`, nil)
	return err == nil && len(a.Errors) == 0 && harness.Text(a.Data, "viewer", "user", "id") != ""
}

func TestSetPassword_is_for_an_ADMIN_in_a_session(t *testing.T) {
	t.Parallel()
	harness.OnEachDatabase(t, func(t *testing.T, database string) {
		p := harness.StartServer(t, database)
		root, ada, eve := harness.SignInAdmin(t, p), harness.SignUp(t, p, "ada"), harness.SignUp(t, p, "eve")
		staff := harness.CreateUserWithRole(t, p, root, "clerk", "STAFF")
		key := harness.WithAPIKey(t, root, harness.AdminName, "users:read", "users:write", "users:admin")
		adaID := ada.UserID(t)
		in := harness.Fields{"id": adaID, "newPassword": newPassword}
		for name, tt := range map[string]struct {
			caller harness.Caller
			in     harness.Fields
			want   string
		}{
			"an anonymous caller":     {harness.Anonymous(p), in, "UNAUTHENTICATED"},
			"another customer":        {eve, in, "FORBIDDEN"},
			"the user itself":         {ada, in, "FORBIDDEN"},
			"STAFF":                   {staff, in, "FORBIDDEN"},
			"a key of an ADMIN":       {key, in, "FORBIDDEN"},
			"an ADMIN for itself":     {root, harness.Fields{"id": root.UserID(t), "newPassword": newPassword}, "FORBIDDEN"},
			"a password that is weak": {root, harness.Fields{"id": adaID, "newPassword": "ada"}, "PASSWORD_INVALID"},
			"no user":                 {root, harness.Fields{"id": "usr_00000000000000000000000000", "newPassword": newPassword}, "USER_NOT_FOUND"},
		} {
			if got := setPasswordOutcome(t, tt.caller, tt.in); got != tt.want {
				t.Errorf("setPassword by %s = %s, want %s", name, got, tt.want)
			}
		}
		if !isSignedIn(t, ada) {
			t.Fatal("a refused setPassword has ended a session")
		}

		if got := setPasswordOutcome(t, root, in); got != "ada" {
			t.Fatalf("setPassword by an ADMIN = %s", got)
		}
		if isSignedIn(t, ada) {
			t.Error("the session from before the new password goes on")
		}
		harness.SignIn(t, p, "ada", newPassword)
		events := harness.SecurityEvents(t, p, "--type", "password.set")
		if len(events) != 1 || events[0].User != adaID || events[0].Actor != root.UserID(t) {
			t.Errorf("the security events of setPassword are %+v, want one of ada by root", events)
		}

		path := "PUT /users/" + eve.UserID(t) + "/password"
		body := `{"password": "` + newPassword + `"}`
		key.MustREST(t, http.StatusForbidden, path, body)
		root.MustREST(t, http.StatusNoContent, path, body)
		if isSignedIn(t, eve) {
			t.Error("the session from before the route goes on")
		}
		harness.SignIn(t, p, "eve", newPassword)
	})
}

func TestSessions_last_as_the_settings_say(t *testing.T) {
	t.Parallel()
	for settings, want := range map[string]time.Duration{
		"BACKPLANE_SESSION_IDLE_TIME=2h": 2 * time.Hour,
		"BACKPLANE_SESSION_TIME=1h":      time.Hour,
	} {
		t.Run(settings, func(t *testing.T) {
			t.Parallel()
			p := testenv.Server(t, settings)
			data := harness.SignUp(t, p, "ada").Do(t, `{ viewer { sessions { createdAt expiresAt } } }`, nil)
			var times [2]time.Time
			for i, name := range []string{"createdAt", "expiresAt"} {
				at, err := time.Parse(time.RFC3339, harness.Text(data, "viewer", "sessions", 0, name))
				if err != nil {
					t.Fatal(err)
				}
				times[i] = at
			}
			if got := times[1].Sub(times[0]); got != want {
				t.Errorf("a session lasts %s, want %s", got, want)
			}
		})
	}
}

// account is an account as backplane users --json shows it.
type account struct {
	ID, Username, Status, Email string
	Roles                       []string
	Sessions                    int
}

// users runs backplane users, with a standard input, and returns the accounts that it printed.
func users(t *testing.T, database, input string, args ...string) ([]account, error) {
	t.Helper()
	cmd := exec.Command(testenv.Binary(t), append([]string{"users", "--json"}, args...)...)
	cmd.Dir, cmd.Env, cmd.Stdin = t.TempDir(), append(os.Environ(), harness.Settings(database)...), strings.NewReader(input)
	out, err := testenv.OutputOf(cmd)
	if err != nil {
		return nil, fmt.Errorf("%w: %s", err, out)
	}
	var all []account
	for d := json.NewDecoder(strings.NewReader(out)); d.More(); {
		var a account
		if err := d.Decode(&a); err != nil {
			t.Fatalf("backplane users %v printed %q: %v", args, out, err)
		}
		all = append(all, a)
	}
	return all, nil
}

func TestUsers_are_managed_by_commands(t *testing.T) {
	t.Parallel()
	harness.OnEachDatabase(t, func(t *testing.T, database string) {
		p := harness.StartServer(t, database)
		ada := harness.SignUp(t, p, "ada")
		must := func(input string, args ...string) account {
			t.Helper()
			all, err := users(t, database, input, args...)
			if err != nil || len(all) != 1 {
				t.Fatalf("backplane users %v = %v, %v; want one account", args, all, err)
			}
			return all[0]
		}
		refused := func(want, input string, args ...string) {
			t.Helper()
			if _, err := users(t, database, input, args...); err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("backplane users %v = %v, want %q", args, err, want)
			}
		}

		grace := must(newPassword+"\n", "create", "grace", "--email", "grace@example.com", "--roles", "customer,staff")
		if !slices.Equal(grace.Roles, []string{"CUSTOMER", "STAFF"}) || grace.Email != "grace@example.com" {
			t.Errorf("users create made %+v", grace)
		}
		harness.SignIn(t, p, "grace", newPassword)
		refused("taken", newPassword, "create", "Grace")
		refused("which has none", "", "create", "ben")
		refused("10", "short", "create", "ben")
		if robot := must("", "create", "robot", "--no-password", "--roles", "service"); !slices.Equal(robot.Roles, []string{"SERVICE"}) {
			t.Errorf("users create --no-password made %+v", robot)
		}

		must("another good one", "set-password", "grace@example.com")
		harness.SignIn(t, p, "grace", "another good one")
		if got := must("", "show", grace.ID); got.Sessions != 1 {
			t.Errorf("users show after a new password and a sign-in says %d sessions, want 1", got.Sessions)
		}

		must("", "set-roles", "ada", "ADMIN")
		harness.Eventually(t, "ada is ADMIN on the running server", func() bool {
			a, err := ada.Send(t.Context(), `{ users { totalCount } }`, nil)
			return err == nil && len(a.Errors) == 0 && harness.Number(a.Data, "users", "totalCount") == 4
		})
		must("", "deactivate", "grace")
		harness.Eventually(t, "the sessions of grace have ended", func() bool { return must("", "show", "grace").Sessions == 0 })
		refused("activate it first", newPassword, "set-password", "grace")
		if got := must("", "activate", "grace"); got.Status != "ACTIVE" {
			t.Errorf("users activate = %+v", got)
		}
		must("", "deactivate", harness.AdminName)
		refused("last active ADMIN", "", "deactivate", "ada")
		refused(`there is no account "eve"`, "", "show", "eve")
		if all, err := users(t, database, ""); err != nil || len(all) != 4 {
			t.Errorf("users = %v, %v; want 4", all, err)
		}

		var changes []string
		for _, e := range harness.SecurityEvents(t, p) {
			if e.Type == "password.set" || e.Type == "user.roles_changed" || e.Type == "user.status_changed" {
				changes = append(changes, e.Type+" "+e.Detail+e.Actor)
			}
		}
		want := []string{
			"user.roles_changed ADMIN", "user.roles_changed CUSTOMER,STAFF", "user.roles_changed SERVICE", "password.set ", "user.roles_changed ADMIN",
			"user.status_changed DEACTIVATED", "user.status_changed ACTIVE", "user.status_changed DEACTIVATED",
		}
		if !slices.Equal(changes, want) {
			t.Errorf("the security events are %q, want %q", changes, want)
		}
	})
}

func TestServer_keeps_the_first_password_out_of_its_output(t *testing.T) {
	t.Parallel()
	harness.OnEachDatabase(t, func(t *testing.T, database string) {
		harness.RunCommand(t, database, "migrate")
		p := testenv.Server(t, "BACKPLANE_DATABASE_URL="+database)
		dir := p.Dir
		if path, ok := strings.CutPrefix(database, "sqlite:"); ok {
			dir = filepath.Dir(path)
		}
		files, err := filepath.Glob(filepath.Join(dir, "admin-password-*.txt"))
		if err != nil || len(files) != 1 {
			t.Fatalf("the files with the password are %q, %v; want one in %s", files, err, dir)
		}
		text, err := os.ReadFile(files[0])
		if err != nil {
			t.Fatal(err)
		}
		if info, err := os.Stat(files[0]); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("the mode of %s is %v, %v; want 0600", files[0], info.Mode(), err)
		}
		password := strings.TrimSpace(string(text))
		if out := p.Logs(); strings.Contains(out, password) || !strings.Contains(out, filepath.Base(files[0])) {
			t.Errorf("the output has the password, or does not name the file:\n%s", out)
		}
		harness.SignIn(t, p, "admin", password)
		p.Restart()
		if files, err := filepath.Glob(filepath.Join(dir, "admin-password-*.txt")); err != nil || len(files) != 1 {
			t.Errorf("after a restart the files are %q, %v", files, err)
		}
	})
}

func TestServer_says_what_has_its_port(t *testing.T) {
	t.Parallel()
	p := testenv.Server(t, "BACKPLANE_DATABASE_URL=sqlite:"+filepath.Join(t.TempDir(), "backplane.db"))
	out, err := p.Run("serve", "--database-url=sqlite:"+filepath.Join(t.TempDir(), "backplane.db"))
	if err == nil || !strings.Contains(out, "another Backplane serves there: stop it, or start this server with another --listen") {
		t.Errorf("a second server on the port said %s, %v", out, err)
	}
}
