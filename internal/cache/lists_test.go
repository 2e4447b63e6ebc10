package cache_test

import (
	"log/slog"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/backplane-dev/backplane/internal/cache"
	"github.com/backplane-dev/backplane/internal/claim"
	"github.com/backplane-dev/backplane/internal/eventlog"
	"github.com/backplane-dev/backplane/internal/notify"
	"github.com/backplane-dev/backplane/internal/order"
	"github.com/backplane-dev/backplane/internal/page"
	"github.com/backplane-dev/backplane/internal/store"
	"github.com/backplane-dev/backplane/internal/testenv"
	"github.com/backplane-dev/backplane/internal/uid"
)

func TestCache_of_no_bytes_decorates_nothing(t *testing.T) {
	t.Parallel()
	c, err := cache.New(cache.Config{}, nil, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if s := c.Products(store.Products{}); s != (store.Products{}) {
		t.Errorf("a cache that is off decorates the store: %T", s)
	}
}

func TestLists_are_kept_until_a_row_of_their_entity_changes(t *testing.T) {
	t.Parallel()
	url, both := testenv.SQLite(t), &notify.Memory{}
	a, b := start(t, options{url: url, bus: both}), start(t, options{url: url, bus: both})
	a.product(t, "cup", 1)
	pot := a.product(t, "pot", 1)
	b.caughtUp(t, a)
	list := func() (names []string, total int) {
		p, err := b.products.List(t.Context(), order.ProductFilter{}, order.ProductsByNameAsc, page.Args{})
		if err != nil {
			t.Fatal(err)
		}
		for _, item := range p.Items {
			names = append(names, item.Name)
		}
		if total, err = b.products.Count(t.Context(), order.ProductFilter{}); err != nil {
			t.Fatal(err)
		}
		return names, total
	}
	for _, step := range []struct {
		name       string
		change     func()
		statements int
		want       []string
	}{
		{"the first time", func() {}, 2, []string{"cup", "pot"}},
		{"again", func() {}, 0, []string{"cup", "pot"}},
		{"after a write of this node", func() { b.rename(t, pot.ID, "a pot") }, 2, []string{"a pot", "cup"}},
		{"once the hub has read that", func() { b.caughtUp(t, b); list() }, 0, []string{"a pot", "cup"}},
		{"after another node's write", func() { a.product(t, "mug", 1); b.caughtUp(t, a) }, 2, []string{"a pot", "cup", "mug"}},
		{"after a change of something else", func() { a.user(t); b.caughtUp(t, a) }, 0, []string{"a pot", "cup", "mug"}},
	} {
		step.change()
		var got []string
		var total int
		if n := b.statements(func() { got, total = list() }); n != step.statements {
			t.Errorf("%s a list and its count took %d statements, want %d", step.name, n, step.statements)
		}
		if diff := cmp.Diff(step.want, got); diff != "" || total != len(step.want) {
			t.Errorf("%s the list counts %d and is (-want +got):\n%s", step.name, total, diff)
		}
	}
}

func TestLists_are_not_older_than_one_that_was_read_late(t *testing.T) {
	t.Parallel()
	url := testenv.SQLite(t)
	n := start(t, options{url: url, hub: eventlog.HubConfig{Poll: time.Hour}}) // it reads its own events only
	count := func() int {
		total, err := n.products.Count(t.Context(), order.ProductFilter{})
		if err != nil {
			t.Error(err)
		}
		return total
	}
	cup := n.product(t, "cup", 1)
	n.caughtUp(t, n)
	begun, release, late := make(chan struct{}), make(chan struct{}), make(chan int, 1)
	stop := func() {
		close(begun)
		<-release
	}
	n.slow.before.Store(&stop)
	go func() { late <- count() }() // of the state before the next write
	<-begun
	n.caughtUpAfter(t, func() { n.rename(t, cup.ID, "mug") })
	if got := count(); got != 1 {
		t.Fatalf("there are %d products, want 1", got)
	}
	other := start(t, options{url: url})
	other.product(t, "pot", 1)
	close(release)
	if got := <-late; got != 2 {
		t.Fatalf("the late count is %d, want 2", got)
	}
	if got := count(); got != 2 {
		t.Errorf("after a count of 2 it is %d", got)
	}
}

func TestLists_equal_the_pages_of_the_store(t *testing.T) {
	t.Parallel()
	n := start(t, options{})
	for _, sku := range []string{"a", "b", "c", "d", "e"} {
		n.product(t, sku, 1)
	}
	two := 2
	var after *string
	for range 3 {
		args := page.Args{First: &two, After: after}
		want, err := n.db.Products().List(t.Context(), order.ProductFilter{}, order.ProductsByNameDesc, args)
		if err != nil {
			t.Fatal(err)
		}
		for range 2 {
			got, err := n.products.List(t.Context(), order.ProductFilter{}, order.ProductsByNameDesc, args)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(want, got, cmpopts.IgnoreUnexported(order.Product{})); diff != "" {
				t.Errorf("page after %v (-store +cache):\n%s", after, diff)
			}
		}
		after = &want.Cursors[len(want.Cursors)-1]
	}
}

func TestLists_of_users_are_kept_until_an_order_changes(t *testing.T) {
	t.Parallel()
	n := start(t, options{url: testenv.SQLite(t)})
	n.product(t, "cup", 100)
	ada, bob := n.user(t).ID, n.user(t).ID
	place := func(who uid.User) {
		wants := []order.Want{{SKU: "cup", Quantity: 1}}
		_, err := n.orders.Place(t.Context(), claim.None, who, wants, func(offers map[string]order.Offer) (*order.Order, error) {
			return order.Place(order.Details{UserID: who}, wants, offers, time.Now())
		})
		if err != nil {
			t.Fatal(err)
		}
		n.caughtUp(t, n)
	}
	place(ada)
	list := func(users ...uid.User) (numbers int) {
		pages, err := n.orders.ListByUsers(t.Context(), users, order.Filter{}, order.ByPlacedDesc, page.Args{})
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range pages {
			numbers += len(p.Items)
		}
		return numbers
	}
	for _, step := range []struct {
		name             string
		change           func()
		users            []uid.User
		statements, want int
	}{
		{"the first time", func() {}, []uid.User{ada}, 1, 1},
		{"again", func() {}, []uid.User{ada}, 0, 1},
		{"with a user without orders", func() {}, []uid.User{ada, bob}, 1, 1},
		{"again with both", func() {}, []uid.User{bob, ada}, 0, 1},
		{"after an order of the other", func() { place(bob) }, []uid.User{bob, ada}, 1, 2},
		{"after a change of something else", func() { n.user(t); n.caughtUp(t, n) }, []uid.User{bob, ada}, 0, 2},
	} {
		step.change()
		got := 0
		if count := n.statements(func() { got = list(step.users...) }); count != step.statements || got != step.want {
			t.Errorf("%s the lists took %d statements and have %d orders, want %d and %d", step.name, count, got, step.statements, step.want)
		}
	}
}
