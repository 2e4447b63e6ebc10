package loader

import (
	"context"

	"github.com/backplane-dev/backplane/graph/model"
	"github.com/backplane-dev/backplane/internal/auth"
	"github.com/backplane-dev/backplane/internal/event"
	"github.com/backplane-dev/backplane/internal/fault"
	"github.com/backplane-dev/backplane/internal/order"
	"github.com/backplane-dev/backplane/internal/page"
	"github.com/backplane-dev/backplane/internal/registry"
	"github.com/backplane-dev/backplane/internal/session"
	"github.com/backplane-dev/backplane/internal/uid"
	"github.com/backplane-dev/backplane/internal/user"
)

// Look-ups by key: the bulk read, and what answers from the memory of the process.
var (
	Users = byKey(func(r *Reads) (bulk[uid.User, *user.User], peek[uid.User, *user.User]) {
		return r.Users.ByIDs, r.Users.Peek
	})
	Products = byKey(func(r *Reads) (bulk[uid.Product, *order.Product], peek[uid.Product, *order.Product]) {
		return r.Products.ByIDs, r.Products.Peek
	})
	Stocks = byKey(func(r *Reads) (bulk[uid.Product, *order.Stock], peek[uid.Product, *order.Stock]) {
		return r.Products.Stocks, r.Products.PeekStock
	})
	Orders = byKey(func(r *Reads) (bulk[uid.Order, *order.Order], peek[uid.Order, *order.Order]) {
		return r.Orders.ByIDs, r.Orders.Peek
	})
	Sessions = byKey(func(r *Reads) (bulk[uid.Session, *session.Session], peek[uid.Session, *session.Session]) {
		return r.Sessions.SessionsByIDs, nil
	})
	APIKeys = byKey(func(r *Reads) (bulk[uid.APIKey, *session.APIKey], peek[uid.APIKey, *session.APIKey]) {
		return r.Sessions.APIKeysByIDs, nil
	})
	Events = byKey(func(r *Reads) (bulk[uid.Event, *event.Event], peek[uid.Event, *event.Event]) {
		return r.Log.ByIDs, nil
	})
	Services = byKey(func(r *Reads) (bulk[uid.Service, *registry.View], peek[uid.Service, *registry.View]) {
		return r.Registry.ServicesByIDs, r.Registry.PeekService
	})
	Instances = byKey(func(r *Reads) (bulk[uid.Instance, *registry.Instance], peek[uid.Instance, *registry.Instance]) {
		return r.Registry.InstancesByIDs, r.Registry.PeekInstance
	})
	DeadLetters = byKey(func(r *Reads) (bulk[uid.DeadLetter, *event.DeadLetter], peek[uid.DeadLetter, *event.DeadLetter]) {
		return r.Overseer.DeadLettersByIDs, nil
	})
	Nodes = byKey(func(*Reads) (bulk[string, model.Node], peek[string, model.Node]) { return nodesByIDs, nil })

	leases = byKey(func(r *Reads) (bulk[uid.Instance, registry.Lease], peek[uid.Instance, registry.Lease]) {
		return r.Registry.Leases, nil
	})
	orderItems = byKey(func(r *Reads) (bulk[uid.Order, []*order.Item], peek[uid.Order, []*order.Item]) {
		return r.Orders.Items, r.Orders.PeekItems
	})
	liveSessions = byKey(func(r *Reads) (bulk[uid.User, []*session.Session], peek[uid.User, []*session.Session]) {
		return one(r.Sessions.Sessions), nil
	})
	allAPIKeys = byKey(func(r *Reads) (bulk[uid.User, []*session.APIKey], peek[uid.User, []*session.APIKey]) {
		return one(r.Sessions.APIKeys), nil
	})
)

// nodes are the look-ups behind Nodes, by the kind of the id.
var nodes = map[uid.Kind]bulk[string, model.Node]{
	uid.KindUser:    asNodes(Users),
	uid.KindProduct: asNodes(Products),
	uid.KindOrder:   asNodes(Orders),
	uid.KindSession: asNodes(Sessions),
	uid.KindAPIKey:  asNodes(APIKeys),
	uid.KindEvent:   asNodes(Events),

	uid.KindService:    asNodes(Services),
	uid.KindInstance:   asNodes(Instances),
	uid.KindDeadLetter: asNodes(DeadLetters),
}

// The edges of the graph, named by type and field: from the parent to a key of a
// look-up, or to pages of a list.
var (
	OrderUser    = edge(Users, func(o *order.Order) uid.User { return o.UserID })
	OrderItems   = edges(orderItems, func(o *order.Order) uid.Order { return o.ID })
	OrderEvents  = list(histories, func(o *order.Order) uid.Order { return o.ID })
	ItemProduct  = edge(Products, func(i *order.Item) uid.Product { return i.ProductID })
	ProductStock = edge(Stocks, func(p *order.Product) uid.Product { return p.ID })
	UserOrders   = list(ordersOf, func(u *user.User) uid.User { return u.ID })
	EventSubject = edge(Nodes, func(e *event.Event) string { return e.SubjectID })

	ServiceInstances = list(instancesOf, func(v *registry.View) uid.Service { return v.ID })
	InstanceService  = edge(Services, func(i *registry.Instance) uid.Service { return i.ServiceID })
	InstanceLease    = edge(leases, func(i *registry.Instance) uid.Instance { return i.ID })

	ViewerUser     = edge(Users, func(v *model.Viewer) uid.User { return v.UserID })
	ViewerSessions = edges(liveSessions, func(v *model.Viewer) uid.User { return v.UserID })
	ViewerAPIKeys  = edges(allAPIKeys, func(v *model.Viewer) uid.User { return v.UserID })
	ViewerOrders   = list(ordersOf, func(v *model.Viewer) uid.User { return v.UserID })
)

// OrderList are the arguments of a list of a user's orders. The filter's UserID is
// not used.
type OrderList struct {
	Filter order.Filter
	By     order.OrderBy
	Args   page.Args
}

func ordersOf(r *Reads) (func(context.Context, []uid.User, OrderList) (map[uid.User]page.Page[*order.Order], error),
	func(context.Context, []uid.User, OrderList) (map[uid.User]int, error),
) {
	return func(ctx context.Context, users []uid.User, l OrderList) (map[uid.User]page.Page[*order.Order], error) {
			return r.Orders.ListByUsers(ctx, users, l.Filter, l.By, l.Args)
		}, func(ctx context.Context, users []uid.User, l OrderList) (map[uid.User]int, error) {
			return r.Orders.CountByUsers(ctx, users, l.Filter)
		}
}

func histories(r *Reads) (func(context.Context, []uid.Order, page.Args) (map[uid.Order]page.Page[*event.Event], error),
	func(context.Context, []uid.Order, page.Args) (map[uid.Order]int, error),
) {
	return r.Log.ListByOrders, func(ctx context.Context, orders []uid.Order, _ page.Args) (map[uid.Order]int, error) {
		return r.Log.CountByOrders(ctx, orders)
	}
}

// InstanceList are the arguments of a list of a service's instances.
type InstanceList struct {
	Status *registry.Status
	Args   page.Args
}

func instancesOf(r *Reads) (func(context.Context, []uid.Service, InstanceList) (map[uid.Service]page.Page[*registry.Instance], error),
	func(context.Context, []uid.Service, InstanceList) (map[uid.Service]int, error),
) {
	return func(ctx context.Context, services []uid.Service, l InstanceList) (map[uid.Service]page.Page[*registry.Instance], error) {
			return r.Registry.InstancesByServices(ctx, services, l.Status, l.Args)
		}, func(ctx context.Context, services []uid.Service, l InstanceList) (map[uid.Service]int, error) {
			return r.Registry.CountByServices(ctx, services, l.Status)
		}
}

// one makes a bulk read of a read by one key, for an edge of what a response has
// only one of.
func one[K comparable, V any](read func(context.Context, K) (V, error)) bulk[K, V] {
	return func(ctx context.Context, keys []K) (map[K]V, error) {
		found := make(map[K]V, len(keys))
		for _, k := range keys {
			v, err := read(ctx, k)
			if err != nil {
				return nil, err
			}
			found[k] = v
		}
		return found, nil
	}
}

// Readable makes an error of a user who may not be read, for an edge that is never
// null: the caller is told so.
func Readable(u *user.User, err error) (*user.User, error) {
	if err == nil && u == nil {
		err = fault.New(fault.Forbidden, fault.AccessDenied, "Reading users needs the scope %s.", auth.UsersRead)
	}
	return u, err
}
