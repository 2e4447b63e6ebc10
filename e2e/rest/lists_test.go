package rest

import (
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/backplane-dev/backplane/e2e/harness"
)

// startList returns an ADMIN of a server with seven users more, user1 to user7, and the settings.
func startList(t *testing.T, database string, settings ...string) harness.Caller {
	t.Helper()
	root := harness.SignInAdmin(t, harness.StartServer(t, database, settings...))
	for i := range 7 {
		root.MustREST(t, http.StatusCreated, "POST /users", fmt.Sprintf(`{"id": %d, "username": "user%d"}`, i+1, i+1))
	}
	return root
}

// linkOf returns the target of a link of a response, empty if it has none.
func linkOf(header http.Header, rel string) string {
	m := regexp.MustCompile(`<([^>]*)>; rel="` + rel + `"`).FindStringSubmatch(strings.Join(header.Values("Link"), ", "))
	if m == nil {
		return ""
	}
	return m[1]
}

// usersOf returns the names that a list shows.
func usersOf(t *testing.T, a *harness.RESTAnswer) (names []string) {
	t.Helper()
	list, _ := a.JSON(t).([]any)
	for _, u := range list {
		names = append(names, harness.Text(u, "username"))
	}
	return names
}

func TestREST_lists_are_walked_as_legacy_clients_do(t *testing.T) {
	t.Parallel()
	all := []string{"user7", "user6", "user5", "user4", "user3", "user2", "user1", "root"}
	harness.OnEachDatabase(t, func(t *testing.T, database string) {
		root := startList(t, database)
		for _, start := range []string{"/users?limit=3", "/users?per_page=3&page=1", "/users?offset=0&limit=3", "/users?page=&limit=3&cursor="} {
			var forwards []string
			last := ""
			for path := start; path != ""; {
				a := root.MustREST(t, http.StatusOK, "GET "+path, "")
				if got := a.Header.Get("X-Total-Count"); got != "8" {
					t.Errorf("GET %s says that there are %q, want 8", path, got)
				}
				if linkOf(a.Header, "first") == "" || linkOf(a.Header, "last") == "" {
					t.Errorf("GET %s has the links %v, want the first and the last page", path, a.Header.Values("Link"))
				}
				forwards = append(forwards, usersOf(t, a)...)
				last, path = path, linkOf(a.Header, "next")
			}
			if !slices.Equal(forwards, all) {
				t.Errorf("from %s on, the pages show %v, want %v", start, forwards, all)
			}
			backwards := usersOf(t, root.MustREST(t, http.StatusOK, "GET "+last, ""))
			for path := last; ; {
				a := root.MustREST(t, http.StatusOK, "GET "+path, "")
				if path = linkOf(a.Header, "prev"); path == "" {
					break
				}
				backwards = append(usersOf(t, root.MustREST(t, http.StatusOK, "GET "+path, "")), backwards...)
			}
			if !slices.Equal(backwards, all) {
				t.Errorf("back to %s, the pages show %v, want %v", start, backwards, all)
			}
			a := root.MustREST(t, http.StatusOK, "GET "+linkOf(root.MustREST(t, http.StatusOK, "GET "+start, "").Header, "last"), "")
			if names := usersOf(t, a); names[len(names)-1] != "root" || linkOf(a.Header, "next") != "" {
				t.Errorf("the last page of %s shows %v with the links %v", start, names, a.Header.Values("Link"))
			}
		}
		for path, want := range map[string]string{
			"/users?sort=name&limit=2": "root user1", "/users?sort=-username&limit=2": "user7 user6", "/users?sort=createdAt&limit=1": "root", "/users?sort=created_at&page=2&limit=1": "user1",
			"/users?sort=USERNAME_ASC&limit=1": "root", "/users?page=3&limit=3": "user1 root", "/users?offset=7": "root", "/users?page=9&limit=3": "", "/users?offset=10000": "",
		} {
			if got := strings.Join(usersOf(t, root.MustREST(t, http.StatusOK, "GET "+path, "")), " "); got != want {
				t.Errorf("GET %s shows %q, want %q", path, got, want)
			}
		}
		if a := root.MustREST(t, http.StatusOK, "GET /users", ""); a.Header.Get("X-Total-Count") != "8" || a.Header.Get("Link") != `</graphql>; rel="successor-version"; title="ListUsers"` {
			t.Errorf("a whole list has the headers %v", a.Header)
		}
		checkRefusedPositions(t, root)
	})
}

// checkRefusedPositions checks what the parameters of a list refuse, each with words and a pointer.
func checkRefusedPositions(t *testing.T, root harness.Caller) {
	t.Helper()
	for query, want := range map[string]string{
		"page=2&cursor=x":   "page cannot be given with cursor: give one of them.",
		"page=2&offset=2":   "page cannot be given with offset: give one of them.",
		"offset=2&last=2":   "offset cannot be given with last: give one of them.",
		"page=1&before=x":   "page cannot be given with before: give one of them.",
		"limit=2&last=2":    "limit cannot be given with last: give one of them.",
		"page=0&limit=2":    "page must be a whole number from 1 on.",
		"offset=-1":         "offset must be a whole number from 0 on.",
		"offset=1&offset=":  "",
		"offset=1&offset=2": "offset must be given once.",
		"offset=10001":      "offset reaches no further than behind 10000 objects: follow the links of the header Link, or sort the list the other way.",
		"page=99999999999":  "page reaches no further than behind 10000 objects: follow the links of the header Link, or sort the list the other way.",
		"sort=age":          "sort must be one of createdAt, -createdAt, username, -username.",
		"sort=name,-age":    "sort must be one of createdAt, -createdAt, username, -username.",
		"sort=":             "sort must not be empty; leave it out.",
		"colour=red":        "colour is not a parameter that may be given here.",
	} {
		if want == "" {
			root.MustREST(t, http.StatusOK, "GET /users?"+query, "")
			continue
		}
		a := root.MustREST(t, http.StatusUnprocessableEntity, "GET /users?"+query, "").JSON(t)
		name, _, _ := strings.Cut(query, "=")
		if got := harness.Text(a, "errors", 0, "detail"); got != want || harness.Text(a, "errors", 0, "pointer") != "/"+name {
			t.Errorf("GET /users?%s is refused with %v, want %q", query, a, want)
		}
	}
	root.MustREST(t, http.StatusUnprocessableEntity, "GET /events?page=2", "") // the log has cursors alone
}

func TestREST_takes_forms_where_it_takes_JSON(t *testing.T) {
	t.Parallel()
	harness.OnEachDatabase(t, func(t *testing.T, database string) {
		root := harness.SignInAdmin(t, harness.StartServer(t, database))
		form := func(status int, route, body string, header ...string) *harness.RESTAnswer {
			t.Helper()
			return root.MustREST(t, status, route, body, append(header, "Content-Type", "application/x-www-form-urlencoded")...)
		}
		form(http.StatusCreated, "POST /users", "id=5&username=ada&email=ada%40example.com")
		form(http.StatusOK, "PATCH /users/5", "email=grace@example.com")
		form(http.StatusCreated, "POST /products", "id=6&sku=TEA&name=Green+tea&price[amount]=1.50&price[currency]=EUR&stock=7&active=true")
		form(http.StatusOK, "PATCH /products/6", "price[amount]=2.00")
		a := form(http.StatusCreated, "POST /orders", "id=7&items[0][sku]=TEA&items[0][quantity]=2&user_id=5", "Idempotency-Key", "one")
		if got := harness.Text(a.JSON(t), "total", "amount"); got != "4.00" {
			t.Errorf("the order is %s, want a total of 4.00", a.Body)
		}
		again := root.MustREST(t, http.StatusCreated, "POST /orders", `{"id": "7", "items": [{"sku": "TEA", "quantity": 2}], "user_id": "5"}`, "Idempotency-Key", "one")
		if string(again.Body) != string(a.Body) {
			t.Errorf("the same call as JSON gave %s, want %s", again.Body, a.Body)
		}
		form(http.StatusCreated, "POST /services", "name=till&tags=a,b&metadata[zone]=x&health_check[path]=/healthz")
		form(http.StatusUnprocessableEntity, "POST /users", "username=bob&colour=red")
		form(http.StatusUnprocessableEntity, "POST /products/6/stock", "by=many")
		form(http.StatusUnsupportedMediaType, "POST /users", `{"username": "bob"}`)
		form(http.StatusForbidden, "POST /users", "username=bob", "Origin", "https://evil.example")
		form(http.StatusForbidden, "POST /users", "username=bob", "Sec-Fetch-Site", "cross-site")
		root.MustREST(t, http.StatusUnsupportedMediaType, "POST /users", "username=bob", "Content-Type", "multipart/form-data; boundary=x")
		root.MustREST(t, http.StatusUnsupportedMediaType, "POST /users", "username=bob", "Content-Type", "application/x-www-form-urlencoded; charset=latin1")
	})
}

func TestREST_obeys_the_settings_of_lists_and_parameters(t *testing.T) {
	t.Parallel()
	database := harness.Databases["SQLite"](t)
	root := startList(t, database, "BACKPLANE_REST_PAGE_SIZE=3", "BACKPLANE_REST_UNKNOWN_PARAMETERS=ignore")
	a := root.MustREST(t, http.StatusOK, "GET /users?colour=red&page=2", "", "User-Agent", "shop/1.2")
	if got := strings.Join(usersOf(t, a), " "); got != "user4 user3 user2" || linkOf(a.Header, "next") != "/users?colour=red&page=3" {
		t.Errorf("the second page shows %s with the links %v", got, a.Header.Values("Link"))
	}
	if got := usersOf(t, root.MustREST(t, http.StatusOK, "GET /users?last=5", "")); len(got) != 5 {
		t.Errorf("the last five are %v", got)
	}
	if spec := string(root.MustREST(t, http.StatusOK, "GET /openapi.json", "").Body); !strings.Contains(spec, `, 3 if neither `) {
		t.Error("the OpenAPI document does not say how many objects a page has")
	}
	root.MustREST(t, http.StatusUnprocessableEntity, "POST /users", `{"username": "bob", "colour": "red"}`) // a property is no parameter
	harness.Eventually(t, "the parameter is counted", func() bool {
		return strings.Contains(harness.RunCommand(t, database, "legacy"), "GET /users?colour")
	})
}
