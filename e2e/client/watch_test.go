package client_test

import (
	"errors"
	"fmt"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/backplane-dev/backplane/client"
)

// TestWatch_reads_anew_what_it_cannot_follow gives the log another timeline, as a
// restore does, so that the registry knows the watch's cursor no more.
func TestWatch_reads_anew_what_it_cannot_follow(t *testing.T) {
	t.Parallel()
	r := startRegistry(t)
	c := r.define(till)
	for n := range 3 {
		reg := tillInstance(fmt.Sprint("till-", n))
		reg.TTL = time.Minute
		register(t, c, reg)
	}
	w := watch(t, c, "till")
	until(t, w, "all are there", func(s *client.Set) bool { return len(s.Instances) == 3 })
	r.Kill()
	if out, err := r.Run("migrate", "--after-restore"); err != nil {
		t.Fatalf("migrate --after-restore: %v: %s", err, out)
	}
	until(t, w, "the set is stale", func(s *client.Set) bool { return !s.Stale.IsZero() })
	r.Start()
	for set := w.Set(); set.Trouble == nil || !set.Stale.IsZero(); { // it never gets empty on the way
		next, err := w.Next(t.Context(), set)
		if err != nil {
			t.Fatal(err)
		}
		if set = next; len(set.Instances) != 3 {
			t.Fatalf("the set became %+v", *set)
		}
		if set.Stale.IsZero() {
			break
		}
	}
	reg := tillInstance("till-3")
	reg.TTL = time.Minute
	register(t, c, reg)
	until(t, w, "later changes are received", func(s *client.Set) bool { return len(s.Instances) == 4 })
}

// TestWatch_keeps_the_last_good_set registers instances that send no heartbeats.
func TestWatch_keeps_the_last_good_set(t *testing.T) {
	t.Parallel()
	r := startRegistry(t)
	c := r.define(till)
	w := watch(t, c, "till")
	for n := range 3 {
		r.do(`mutation($id: String!) { registerInstance(input: {service: "till", instanceId: $id, url: "http://127.0.0.1:9", ttl: "2s"}) { userErrors { code } } }`, map[string]any{"id": fmt.Sprint("till-", n)})
	}
	until(t, w, "all are there", func(s *client.Set) bool { return len(s.Instances) == 3 && s.Degraded.IsZero() })
	set := until(t, w, "the service is degraded", func(s *client.Set) bool { return !s.Degraded.IsZero() })
	if len(set.Instances) != 3 || !set.Stale.IsZero() {
		t.Errorf("when all vanish at once the set is %+v, want all of them", *set)
	}
	late := watch(t, c, "till")
	if set := late.Set(); len(set.Instances) != 3 || set.Degraded.IsZero() {
		t.Errorf("a later watch sees %+v", *set)
	}
}

// TestWatch_of_many reads a service in pages.
func TestWatch_of_many(t *testing.T) {
	t.Parallel()
	r := startRegistry(t)
	c := r.define(till)
	early := watch(t, c, "till")
	for n := range 120 {
		r.do(`mutation($id: String!) { registerInstance(input: {service: "till", instanceId: $id, url: "http://127.0.0.1:9", ttl: "5m"}) { userErrors { code } } }`, map[string]any{"id": fmt.Sprintf("till-%03d", n)})
	}
	want := ids(until(t, early, "all are received", func(s *client.Set) bool { return len(s.Instances) == 120 }))
	late := watch(t, c, "till")
	if got := ids(late.Set()); got != want {
		t.Errorf("reading gives %s, following gave %s", got, want)
	}
}

func TestWatch_of_a_service_that_ends_and_comes_back(t *testing.T) {
	t.Parallel()
	r := startRegistry(t)
	c := r.define(till)
	register(t, c, tillInstance("till-1"))
	w := watch(t, c, "till")
	until(t, w, "the instance is there", func(s *client.Set) bool { return len(s.Instances) == 1 })
	id := find[string](r.do(`{ service(name: "till") { id } }`, nil), "service", "id")
	r.do(`mutation($id: ID!) { deregisterService(input: {id: $id}) { userErrors { code } } }`, map[string]any{"id": id})
	until(t, w, "the set is empty, as the registry says", func(s *client.Set) bool { return len(s.Instances) == 0 && s.Stale.IsZero() })
	if err := c.DefineService(t.Context(), till); err != nil {
		t.Fatal(err)
	}
	until(t, w, "the instance comes back with the service", func(s *client.Set) bool { return ids(s) == "till-1" })
}

// roundTripper is a transport of HTTP as a function.
type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(req *http.Request) (*http.Response, error) { return f(req) }

// TestWatch_of_a_service_that_ends_between_reading_and_following deregisters the service after
// the watch has read it and before its first subscription reaches the registry.
func TestWatch_of_a_service_that_ends_between_reading_and_following(t *testing.T) {
	t.Parallel()
	r := startRegistry(t)
	owner := r.define(till)
	register(t, owner, tillInstance("till-1"))
	id := find[string](r.do(`{ service(name: "till") { id } }`, nil), "service", "id")
	var once sync.Once
	transport := roundTripper(func(req *http.Request) (*http.Response, error) {
		if req.Header.Get("Accept") == "text/event-stream" {
			once.Do(func() {
				r.do(`mutation($id: ID!) { deregisterService(input: {id: $id}) { userErrors { code } } }`, map[string]any{"id": id})
			})
		}
		return http.DefaultTransport.RoundTrip(req)
	})
	c := r.client(client.Config{URLs: []string{r.BaseURL}, Token: r.key("services:read"), HTTPClient: &http.Client{Transport: transport}})
	w := watch(t, c, "till")
	until(t, w, "the set is empty, as the registry says", func(s *client.Set) bool { return len(s.Instances) == 0 && s.Stale.IsZero() })
	if err := owner.DefineService(t.Context(), till); err != nil {
		t.Fatal(err)
	}
	until(t, w, "the instance comes back with the service", func(s *client.Set) bool { return ids(s) == "till-1" && s.Stale.IsZero() })
}

func TestWatch_says_at_once_what_is_refused(t *testing.T) {
	t.Parallel()
	r := startRegistry(t)
	c := r.define(till)
	if _, err := c.Watch(t.Context(), "none"); client.Code(err) != client.CodeServiceNotFound {
		t.Errorf("an unknown service: %v", err)
	}
	orders := r.client(client.Config{URLs: []string{r.BaseURL}, Token: r.key("orders:read")})
	if _, err := orders.Watch(t.Context(), "till"); client.Code(err) != client.CodeForbidden {
		t.Errorf("a key for orders: %v", err)
	}
}

func TestWatch_Close_leaves_the_set_as_it_was(t *testing.T) {
	t.Parallel()
	r := startRegistry(t)
	c := r.define(till)
	register(t, c, tillInstance("till-1"))
	w := watch(t, c, "till")
	until(t, w, "the instance is there", func(s *client.Set) bool { return len(s.Instances) == 1 })
	w.Close()
	w.Close()
	if set := w.Set(); len(set.Instances) != 1 || set.Stale.IsZero() || !errors.Is(set.Trouble, client.ErrClosed) {
		t.Errorf("after Close the set is %+v", *set)
	}
	if _, err := w.Next(t.Context(), w.Set()); !errors.Is(err, client.ErrClosed) {
		t.Errorf("Next = %v, want ErrClosed", err)
	}
}
