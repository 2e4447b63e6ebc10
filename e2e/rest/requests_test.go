package rest

import (
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/backplane-dev/backplane/e2e/harness"
)

const (
	unsafeID = "9007199254740993" // 2^53+1: JSON readers with floating-point numbers make it another
	productX = `{"id": ` + unsafeID + `, "sku": "X", "name": "X", "description": "A letter.", "price": {"amount": "1.00", "currency": "EUR"}, "stock": 5}`
)

// startShop returns an ADMIN of a server with a user, two products, one of which has a legacy id
// that not every client holds as a number, an order and a service.
func startShop(t *testing.T, database string) harness.Caller {
	t.Helper()
	root := harness.SignInAdmin(t, harness.StartServer(t, database))
	root.MustREST(t, http.StatusCreated, "POST /users", `{"id": 5.0, "username": "ada", "email": "ada@example.com"}`)
	root.MustREST(t, http.StatusCreated, "POST /products", productX)
	root.MustREST(t, http.StatusCreated, "POST /orders", `{"id": 1e1, "items": [{"sku": "X", "quantity": 1.0}]}`)
	root.MustREST(t, http.StatusCreated, "POST /services", `{"name": "till", "description": "Sells.", "tags": ["a"], "health_check": {"path": "/healthz"}}`)
	return root
}

func TestREST_takes_back_what_it_shows(t *testing.T) {
	t.Parallel()
	harness.OnEachDatabase(t, func(t *testing.T, database string) {
		root := startShop(t, database)
		for _, path := range []string{"/users/5", "/products/" + unsafeID, "/services/till"} {
			shown := root.MustREST(t, http.StatusOK, "GET "+path, "")
			for _, method := range []string{"PUT", "PATCH"} {
				if method == "PATCH" && strings.HasPrefix(path, "/services") {
					continue // it has none
				}
				root.MustREST(t, http.StatusOK, method+" "+path, string(shown.Body))
			}
			again := root.MustREST(t, http.StatusOK, "GET "+path, "")
			if diff := cmp.Diff(shown.JSON(t), again.JSON(t)); diff != "" {
				t.Errorf("%s has changed (-before +after):\n%s", path, diff)
			}
		}
		changed := strings.Replace(string(root.MustREST(t, http.StatusOK, "GET /products/"+unsafeID, "").Body), `"stock":4`, `"stock":40`, 1)
		a := root.MustREST(t, http.StatusUnprocessableEntity, "PUT /products/"+unsafeID, changed)
		if got := harness.Text(a.JSON(t), "errors", 0, "pointer"); got != "/stock" {
			t.Errorf("another stock is refused with %s, want a pointer to it", a.Body)
		}
	})
}

func TestREST_shows_numbers_that_every_client_holds(t *testing.T) {
	t.Parallel()
	root := startShop(t, harness.Databases["SQLite"](t))
	for path, want := range map[string]string{
		"/products/" + unsafeID: `{"id":"` + unsafeID + `",`, "/users/5": `{"id":5,`, "/orders/10": `{"id":10,`,
	} {
		if a := root.MustREST(t, http.StatusOK, "GET "+path, ""); !strings.HasPrefix(string(a.Body), want) {
			t.Errorf("GET %s shows %s, want it to begin with %s", path, a.Body, want)
		}
	}
	a := root.MustREST(t, http.StatusOK, "POST /products/"+unsafeID+"/stock", "\uFEFF"+`{"by": 1e1}`)
	if harness.Number(a.JSON(t), "stock") != 14 {
		t.Errorf("ten more units give %s, want a stock of 14", a.Body)
	}
	root.MustREST(t, http.StatusUnprocessableEntity, "POST /products/"+unsafeID+"/stock", `{"by": 1.5}`)
	root.MustREST(t, http.StatusUnprocessableEntity, "PATCH /products/"+unsafeID, `{"name": "half \ud83d"}`)
	root.MustREST(t, http.StatusUnprocessableEntity, "PUT /services/till", `{"tags": "x"}`)
	root.MustREST(t, http.StatusUnprocessableEntity, "POST /orders", `{"items": {"sku": "X", "quantity": 1}}`)
}

func TestREST_evaluates_If_None_Match_on_changes(t *testing.T) {
	t.Parallel()
	harness.OnEachDatabase(t, func(t *testing.T, database string) {
		root := startShop(t, database)
		for path, body := range map[string]string{
			"PUT /users/5": `{"username": "eve"}`, "PATCH /users/5": `{"username": "eve"}`, "DELETE /users/5": "", "DELETE /products/" + unsafeID: "",
			"PATCH /products/" + unsafeID: `{"name": "Y"}`, "PUT /services/till": `{"description": "Changed."}`, "DELETE /services/till": "",
		} {
			_, at, _ := strings.Cut(path, " ")
			tag := root.MustREST(t, http.StatusOK, "GET "+at, "").Header.Get("ETag")
			for _, condition := range []string{"*", tag, "W/" + tag, `"none", ` + tag} {
				root.MustREST(t, http.StatusPreconditionFailed, path, body, "If-None-Match", condition)
			}
			if after := root.MustREST(t, http.StatusOK, "GET "+at, "").Header.Get("ETag"); after != tag {
				t.Errorf("%s with If-None-Match changed it", path)
			}
		}
		root.MustREST(t, http.StatusOK, "PATCH /users/5", `{"email": null}`, "If-None-Match", `"999-none"`)
		root.MustREST(t, http.StatusNotFound, "PUT /users/6", `{"username": "eve"}`, "If-None-Match", "*")
		checkConditionHolds(t, root, "PATCH /products/"+unsafeID, false)
		checkConditionHolds(t, root, "PATCH /products/"+unsafeID, true)
		checkConditionHolds(t, root, "PATCH /users/5", true)
	})
}

// TestREST_refuses_conditions_that_cannot_hold: what has no version cannot have that of If-Match, and what cannot be
// read not that of If-None-Match. Neither is ignored.
func TestREST_refuses_conditions_that_cannot_hold(t *testing.T) {
	t.Parallel()
	harness.OnEachDatabase(t, func(t *testing.T, database string) {
		root := startShop(t, database)
		root.MustREST(t, http.StatusOK, "PUT /services/till/instances/a", `{"url": "http://10.0.0.7:1"}`)
		before := root.MustREST(t, http.StatusOK, "GET /services/till/instances", "").Body
		for _, condition := range []string{"*", `"1"`, `"999"`} {
			for path, body := range map[string]string{
				"PUT /services/till/instances/a": `{"url": "http://10.0.0.7:2"}`, "PATCH /services/till/instances/a": `{"weight": 7}`, "DELETE /services/till/instances/a": "",
				"PUT /services/till/instances/b": `{"url": "http://10.0.0.7:3"}`, "PUT /users/5/password": `{"password": "battery horse correct"}`,
			} {
				for _, header := range []string{"If-Match", "If-None-Match"} {
					root.MustREST(t, http.StatusPreconditionFailed, path, body, header, condition)
					root.MustREST(t, http.StatusPreconditionFailed, path, body, header, condition, "Idempotency-Key", path)
				}
			}
			root.MustREST(t, http.StatusPreconditionFailed, "POST /products/"+unsafeID+"/stock", `{"by": 1}`, "If-Match", condition)
		}
		if after := root.MustREST(t, http.StatusOK, "GET /services/till/instances", "").Body; string(after) != string(before) {
			t.Errorf("the instances were %s and are %s", before, after)
		}
		if stock := harness.Number(root.MustREST(t, http.StatusOK, "GET /products/"+unsafeID, "").JSON(t), "stock"); stock != 4 {
			t.Errorf("the stock is %d, want 4", stock)
		}
	})
}

func TestREST_answers_a_repeat_as_the_first_call_whatever_has_changed_since(t *testing.T) {
	t.Parallel()
	harness.OnEachDatabase(t, func(t *testing.T, database string) {
		root := startShop(t, database)
		path := "/products/" + unsafeID
		shown := root.MustREST(t, http.StatusOK, "GET "+path, "")
		version := tagVersion(t, shown)
		renamed := strings.Replace(string(shown.Body), `"name":"X"`, `"name":"Y"`, 1)
		repeat := func(key, line, body string, header ...string) {
			t.Helper()
			header = append(header, "Idempotency-Key", key)
			first := root.MustREST(t, http.StatusOK, line, body, header...)
			root.MustREST(t, http.StatusOK, "POST "+path+"/stock", `{"by": 1}`)
			again := root.MustREST(t, http.StatusOK, line, body, header...)
			if got, want := tagVersion(t, again), tagVersion(t, first); got != want {
				t.Errorf("a repeat of %s made version %d of %d", line, got, want)
			}
		}
		repeat("read-only properties", "PUT "+path, renamed) // stock among them
		repeat("none match", "PATCH "+path, `{"name": "Z"}`, "If-None-Match", fmt.Sprintf(`"%d"`, version+2))
		repeat("match", "PATCH "+path, `{"name": "A"}`, "If-Match", fmt.Sprintf(`"none", "%d", "999"`, version+2))
		root.MustREST(t, http.StatusUnprocessableEntity, "PUT "+path, renamed, "Idempotency-Key", "none match")   // another call
		root.MustREST(t, http.StatusUnprocessableEntity, "PUT "+path, renamed, "Idempotency-Key", "not used yet") // the stock is another
		root.MustREST(t, http.StatusPreconditionFailed, "PATCH "+path, `{"name": "B"}`, "If-Match", `"998", "999"`)
		root.MustREST(t, http.StatusUnprocessableEntity, "PATCH "+path, `{"price": {"amount": "2.00"}}`, "If-Match", "*", "Idempotency-Key", "whichever version")
		root.MustREST(t, http.StatusOK, "PATCH "+path, `{"price": {"amount": "2.00"}}`, "If-Match", "*")
	})
}

// checkConditionHolds has two clients change an object at a time, one of them unless it is at the version that the other
// makes of it: what it changed must then be the version before.
func checkConditionHolds(t *testing.T, root harness.Caller, change string, keyed bool) {
	t.Helper()
	_, path, _ := strings.Cut(change, " ")
	refused := 0
	for round := range harness.Size(40, 1000) {
		next := tagVersion(t, root.MustREST(t, http.StatusOK, "GET "+path, "")) + 1
		var wg sync.WaitGroup
		var conditional, other *harness.RESTAnswer
		var err1, err2 error
		wg.Go(func() {
			header := []string{"If-None-Match", fmt.Sprintf(`"%d"`, next)}
			if keyed {
				header = append(header, "Idempotency-Key", fmt.Sprint(change, " ", round))
			}
			conditional, err1 = root.REST(t.Context(), change, fmt.Sprintf(`{"name": "conditional %d"}`, round), header...)
		})
		wg.Go(func() { other, err2 = root.REST(t.Context(), change, fmt.Sprintf(`{"name": "other %d"}`, round)) })
		wg.Wait()
		if err := errors.Join(err1, err2); err != nil || other.Status != http.StatusOK {
			t.Fatalf("round %d: %v, %+v", round, err, other)
		}
		switch {
		case conditional.Status == http.StatusPreconditionFailed:
			refused++
		case conditional.Status != http.StatusOK:
			t.Fatalf("round %d: the conditional change is answered with %d %s", round, conditional.Status, conditional.Body)
		case tagVersion(t, conditional) != next:
			t.Fatalf("round %d: a change unless at version %d made version %d", round, next, tagVersion(t, conditional))
		}
	}
	t.Logf("%d changes were refused", refused)
}

func tagVersion(t *testing.T, a *harness.RESTAnswer) int {
	t.Helper()
	digits, _, _ := strings.Cut(strings.Trim(a.Header.Get("ETag"), `"`), "-")
	version, err := strconv.Atoi(digits)
	if err != nil {
		t.Fatalf("the ETag %s has no version: %v", a.Header.Get("ETag"), err)
	}
	return version
}

func TestREST_empties_what_a_merge_patch_removes(t *testing.T) {
	t.Parallel()
	root := startShop(t, harness.Databases["SQLite"](t))
	a := root.MustREST(t, http.StatusOK, "PATCH /products/"+unsafeID, `{"description": null}`, "Content-Type", "application/merge-patch+json")
	if got := harness.Text(a.JSON(t), "description"); got != "" {
		t.Errorf("the description is %q, want it empty", got)
	}
	root.MustREST(t, http.StatusUnprocessableEntity, "PATCH /products/"+unsafeID, `{"name": null}`)
	root.MustREST(t, http.StatusUnprocessableEntity, "PATCH /products/"+unsafeID, `{"active": null}`)
}

func TestREST_applies_every_filter_or_refuses_it(t *testing.T) {
	t.Parallel()
	root := startShop(t, harness.Databases["SQLite"](t))
	for _, query := range []string{
		"/orders?user_id=", "/orders?userId=x", "/orders?status=", "/orders?status=&status=PAID", "/events?subject_id=", "/events?type=", "/events?subjectId=x", "/users?status=",
		"/products?sku=", "/services?tag=", "/services/till/instances?status=", "/users/5?x=1",
	} {
		a := root.MustREST(t, http.StatusUnprocessableEntity, "GET "+query, "")
		if harness.Text(a.JSON(t), "errors", 0, "in") != "query" {
			t.Errorf("GET %s is refused with %s, want the parameter of the query named", query, a.Body)
		}
	}
	for _, query := range []string{"/orders?cursor=", "/orders?limit=&last=&before=", "/events?after=&cursor="} {
		root.MustREST(t, http.StatusOK, "GET "+query, "")
	}
}
