package cache_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/backplane-dev/backplane/internal/auth"
	"github.com/backplane-dev/backplane/internal/claim"
	"github.com/backplane-dev/backplane/internal/fault"
	"github.com/backplane-dev/backplane/internal/order"
	"github.com/backplane-dev/backplane/internal/page"
	"github.com/backplane-dev/backplane/internal/testenv"
	"github.com/backplane-dev/backplane/internal/uid"
	"github.com/backplane-dev/backplane/internal/user"
	"github.com/backplane-dev/backplane/internal/validate"
)

// domains are the domains' services over one kind of stores.
type domains struct {
	users    *user.Service
	products *order.Catalog
	orders   *order.Service
}

// A caller gets from the cache what it would get from the database.
func TestCallers_see_the_same_with_and_without_the_cache(t *testing.T) {
	t.Parallel()
	n := start(t, options{redis: testenv.Redis(t)})
	now := func() time.Time { return at }
	cached := domains{user.NewService(n.users, nil, now), order.NewCatalog(n.products, now), order.NewService(n.orders, now)}
	plain := domains{user.NewService(n.db.Users(), nil, now), order.NewCatalog(n.db.Products(), now), order.NewService(n.db.Orders(), now)}

	var users []uid.User
	var callers []*auth.Principal
	for i, role := range []auth.Role{auth.Customer, auth.Customer, auth.Customer, auth.Staff, auth.Admin, auth.Service} {
		u := n.user(t, role)
		users = append(users, u.ID)
		callers = append(callers, &auth.Principal{UserID: u.ID, Roles: []auth.Role{role}, Credential: auth.SessionCredential("ses_1")},
			&auth.Principal{UserID: u.ID, Roles: []auth.Role{role}, Credential: auth.APIKeyCredential("key_1", auth.Scopes()[i%len(auth.Scopes())])})
	}
	callers = append(callers, nil)
	var products []uid.Product
	for i := range 4 {
		products = append(products, n.product(t, fmt.Sprint("sku", i), 100).ID)
	}
	if _, err := n.products.Update(t.Context(), claim.None, products[0], func(p *order.Product) error {
		return p.Apply(order.ProductChange{Active: validate.Of(false)}, at)
	}); err != nil {
		t.Fatal(err)
	}
	var orders []uid.Order
	for i := range 12 {
		customer := users[i%3]
		wants := []order.Want{{SKU: fmt.Sprint("sku", 1+i%3), Quantity: 1}}
		o, err := n.orders.Place(t.Context(), claim.None, customer, wants, func(offers map[string]order.Offer) (*order.Order, error) {
			return order.Place(order.Details{UserID: customer}, wants, offers, at)
		})
		if err != nil {
			t.Fatal(err)
		}
		orders = append(orders, o.ID)
	}
	n.caughtUp(t, n)

	rnd := rand.New(rand.NewPCG(1, 2))
	for range 600 {
		caller := callers[rnd.IntN(len(callers))]
		ctx := auth.With(t.Context(), caller)
		k := rnd.IntN(len(users))
		for name, read := range map[string]func(context.Context, domains) (any, error){
			"users": func(ctx context.Context, d domains) (any, error) {
				return d.users.ByIDs(ctx, shuffled(rnd.Uint64(), users))
			},
			"products": func(ctx context.Context, d domains) (any, error) { return d.products.ByIDs(ctx, products) },
			"orders":   func(ctx context.Context, d domains) (any, error) { return d.orders.ByIDs(ctx, orders) },
			"a list of orders": func(ctx context.Context, d domains) (any, error) {
				return d.orders.List(ctx, order.Filter{}, order.ByPlacedDesc, page.Args{})
			},
			"a list of one's orders": func(ctx context.Context, d domains) (any, error) {
				return d.orders.List(ctx, order.Filter{UserID: &users[k]}, order.ByPlacedDesc, page.Args{})
			},
			"a list of users": func(ctx context.Context, d domains) (any, error) {
				return d.users.List(ctx, user.Filter{}, user.ByUsernameAsc, page.Args{})
			},
			"a list of products": func(ctx context.Context, d domains) (any, error) {
				return d.products.List(ctx, order.ProductFilter{}, order.ProductsByNameAsc, page.Args{})
			},
			"a count of orders": func(ctx context.Context, d domains) (any, error) { return d.orders.Count(ctx, order.Filter{}) },
			"a count of users":  func(ctx context.Context, d domains) (any, error) { return d.users.Count(ctx, user.Filter{}) },
		} {
			want, wantErr := read(ctx, plain)
			got, err := read(ctx, cached)
			if code(err) != code(wantErr) {
				t.Fatalf("%s for %+v gave %v with a cache and %v without", name, caller, err, wantErr)
			}
			if diff := cmp.Diff(want, got, cmpopts.IgnoreUnexported(order.Product{}, order.Order{}, user.User{}), cmpopts.EquateEmpty()); diff != "" {
				t.Fatalf("%s for %+v (-without +with a cache):\n%s", name, caller, diff)
			}
		}
		if rnd.IntN(10) == 0 {
			n.cache.Clear() // the next reads come from Redis
		}
	}
	if s := n.cache.Stats().Entities; s["user"].Hits == 0 || s["order"].RedisHits == 0 || s["list"].Hits == 0 {
		t.Errorf("the test did not reach every level: %+v", s)
	}
}

func code(err error) fault.Code {
	if err == nil {
		return ""
	}
	return fault.From(err).Code
}

func shuffled(seed uint64, ids []uid.User) []uid.User {
	some := slices.Clone(ids)
	rand.New(rand.NewPCG(seed, 0)).Shuffle(len(some), func(i, j int) { some[i], some[j] = some[j], some[i] })
	return some
}
