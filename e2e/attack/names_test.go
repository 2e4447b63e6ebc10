package attack

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/backplane-dev/backplane/e2e/harness"
)

// updateSelf changes the caller's own account.
const updateSelf = `mutation($in: UpdateUserInput!) { updateUser(input: $in) { user { id } userErrors { code } } }`

// outcome returns the code of the first error of a mutation, or of its payload; empty if there is none.
func outcome(t *testing.T, c harness.Caller, mutation, field string, in harness.Fields) string {
	t.Helper()
	a, err := c.Send(t.Context(), mutation, harness.Input(in))
	if err != nil {
		t.Fatal(err)
	}
	return codeOf(a, field)
}

// codeOf returns the code of the first error of an answer to a mutation, or of its payload; empty if there is none.
func codeOf(a *harness.Answer, field string) string {
	if len(a.Errors) > 0 {
		code, _ := a.Errors[0].Extensions["code"].(string)
		return code
	}
	return harness.Text(a.Data, field, "userErrors", 0, "code")
}

// TestUser_cannot_try_many_names asks for names that others have, over GraphQL and REST.
func TestUser_cannot_try_many_names(t *testing.T) {
	t.Parallel()
	harness.OnEachDatabase(t, func(t *testing.T, database string) {
		p := harness.StartServer(t, database, "BACKPLANE_RATE_LIMIT=on")
		root := harness.SignInAdmin(t, p)
		harness.SignUp(t, p, "victim")
		names := map[string]int{}
		for attacker := range 4 {
			c := harness.SignUp(t, p, fmt.Sprint("attacker", attacker))
			id := c.UserID(t)
			for range 10 {
				names[outcome(t, c, updateSelf, "updateUser", harness.Fields{"id": id, "username": "victim"})]++
				names[outcome(t, c, updateSelf, "updateUser", harness.Fields{"id": id, "username": "Victim", "name": "x"})]++
			}
			for email := range 10 {
				text := fmt.Sprintf(`{"email": "guess%d@example.org"}`, email)
				if a, err := c.REST(t.Context(), "PATCH /users/"+id, text); err != nil || a.Status != http.StatusTooManyRequests {
					t.Errorf("the 21st name of a user gave %+v, %v; want 429", a, err)
				}
			}
			if code := outcome(t, c, updateSelf, "updateUser", harness.Fields{"id": id, "username": fmt.Sprint("attacker", attacker), "name": "Eve"}); code != "" {
				t.Errorf("a change that keeps the user name gave %s", code)
			}
			if code := outcome(t, c, updateSelf, "updateUser", harness.Fields{"id": id, "email": nil}); code != "" {
				t.Errorf("taking the email address away gave %s", code)
			}
		}
		if names["USERNAME_TAKEN"] != 60 || names["RATE_LIMITED"] != 20 {
			t.Errorf("4 users of one address got %v, want 60 answers and 20 refusals", names)
		}
		for i := range 30 { // ADMIN sees all names anyway
			if code := outcome(t, root, updateSelf, "updateUser", harness.Fields{"id": root.UserID(t), "email": fmt.Sprintf("root%d@example.org", i)}); code != "" {
				t.Errorf("change %d of an ADMIN gave %s", i, code)
			}
		}
	})
}

// TestUser_cannot_look_like_the_operator asks for names that look like reserved ones and those of STAFF and ADMIN, over GraphQL and REST.
func TestUser_cannot_look_like_the_operator(t *testing.T) {
	t.Parallel()
	harness.OnEachDatabase(t, func(t *testing.T, database string) {
		p := harness.StartServer(t, database)
		root := harness.SignInAdmin(t, p)
		clerk := harness.CreateUserWithRole(t, p, root, "oscar", "STAFF")
		eve := harness.SignUp(t, p, "eve")
		const (
			signUp = `mutation($in: SignUpInput!) { signUp(input: $in) { user { id } userErrors { code message } } }`
			create = `mutation($in: CreateUserInput!) { createUser(input: $in) { user { id } userErrors { code message } } }`
		)
		for _, name := range []string{"oscar", "оѕсаг", "0scar", "ösċar", "root", "гоот", "ГООТ", "ροοτ", "ṛoot", "r00t", "admin", "Adrnin", "ADMlN"} {
			account := harness.Fields{"username": name, "password": "a password of mine"}
			const want = "USERNAME_TAKEN"
			if code := outcome(t, harness.Anonymous(p), signUp, "signUp", account); code != want {
				t.Errorf("signing up as %q gave %q, want %s", name, code, want)
			}
			if code := outcome(t, clerk, create, "createUser", account); code != want {
				t.Errorf("creating %q gave %q, want %s", name, code, want)
			}
			if code := outcome(t, eve, updateSelf, "updateUser", harness.Fields{"id": eve.UserID(t), "username": name}); code != want {
				t.Errorf("renaming eve to %q gave %q, want %s", name, code, want)
			}
			if a, err := eve.REST(t.Context(), "PATCH /users/"+eve.UserID(t), fmt.Sprintf(`{"username": %q}`, name)); err != nil || a.Status != http.StatusConflict || !strings.Contains(string(a.Body), want) {
				t.Errorf("renaming eve to %q over REST gave %+v, %v; want %s", name, a, err, want)
			}
		}
		if code := outcome(t, eve, updateSelf, "updateUser", harness.Fields{"id": eve.UserID(t), "username": "Оскар"}); code != "" {
			t.Errorf("renaming eve to a name of another alphabet gave %s", code)
		}
		if code := outcome(t, clerk, updateSelf, "updateUser", harness.Fields{"id": clerk.UserID(t), "username": "support"}); code != "" {
			t.Errorf("renaming STAFF to a reserved name gave %s", code)
		}
	})
}

// TestSignIn_counts_each_spelling_of_a_login guesses at one account by its user name and its email address.
func TestSignIn_counts_each_spelling_of_a_login(t *testing.T) {
	t.Parallel()
	harness.OnEachDatabase(t, func(t *testing.T, database string) {
		p := harness.StartServer(t, database, "BACKPLANE_RATE_LIMIT=on")
		ada := harness.SignUp(t, p, "ada")
		ada.Do(t, updateSelf, harness.Input(harness.Fields{"id": ada.UserID(t), "email": "ada@example.org"}))
		codes := map[string]int{}
		for i := range 25 {
			login := []string{"ada", "ADA", " ada ", "ada@example.org", "Ada@Example.ORG"}[i%5]
			codes[outcome(t, harness.Anonymous(p), `mutation($in: SignInInput!) { signIn(input: $in) { user { id } userErrors { code } } }`,
				"signIn", harness.Fields{"login": login, "password": "a wrong guess"})]++
		}
		if codes["CREDENTIALS_WRONG"] != 10 || codes["RATE_LIMITED"] != 15 {
			t.Errorf("25 guesses at one account gave %v, want 10 of them checked", codes)
		}
	})
}
