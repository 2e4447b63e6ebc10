package loader

import (
	"context"

	"github.com/backplane-dev/backplane/graph/model"
	"github.com/backplane-dev/backplane/internal/auth"
	"github.com/backplane-dev/backplane/internal/consumer"
	"github.com/backplane-dev/backplane/internal/cursor"
	"github.com/backplane-dev/backplane/internal/event"
	"github.com/backplane-dev/backplane/internal/eventlog"
	"github.com/backplane-dev/backplane/internal/fault"
	"github.com/backplane-dev/backplane/internal/legacy"
	"github.com/backplane-dev/backplane/internal/order"
	"github.com/backplane-dev/backplane/internal/page"
	"github.com/backplane-dev/backplane/internal/payment"
	"github.com/backplane-dev/backplane/internal/registry"
	"github.com/backplane-dev/backplane/internal/security"
	"github.com/backplane-dev/backplane/internal/securitylog"
	"github.com/backplane-dev/backplane/internal/session"
	"github.com/backplane-dev/backplane/internal/uid"
	"github.com/backplane-dev/backplane/internal/user"
)

// Domains are the use cases of the domains, which know what the caller may see. Resolvers
// call them, and the declarations take their bulk reads from them.
type Domains struct {
	Users         *user.Service
	Products      *order.Catalog
	Orders        *order.Service
	Sessions      *session.Service
	Registry      *registry.Registrar
	Log           *eventlog.Log
	ConsumerAdmin *consumer.Admin
	Hub           *eventlog.Hub
	Picks         *registry.PickTracker
	Legacy        *legacy.Service
	Security      *securitylog.Service
	Payments      *payment.Service
}

// The nodes: every entity with an id that Query.node finds, with its kind of id, its
// bulk read and its read from the memory of the process, if any. A node is declared here and
// nowhere else in this package; what else the server must know of it, its domain declares.
var (
	Users = newNode(user.Entity.Kind, func(d *Domains) (bulkRead[uid.User, *user.User], memoryRead[uid.User, *user.User]) {
		return d.Users.ByIDs, d.Users.Peek
	})
	Products = newNode(order.ProductEntity.Kind, func(d *Domains) (bulkRead[uid.Product, *order.Product], memoryRead[uid.Product, *order.Product]) {
		return d.Products.ByIDs, d.Products.Peek
	})
	Orders = newNode(order.OrderEntity.Kind, func(d *Domains) (bulkRead[uid.Order, *order.Order], memoryRead[uid.Order, *order.Order]) {
		return d.Orders.ByIDs, d.Orders.Peek
	})
	Sessions = newNode(session.SessionEntity.Kind, func(d *Domains) (bulkRead[uid.Session, *session.Session], memoryRead[uid.Session, *session.Session]) {
		return d.Sessions.SessionsByIDs, nil
	})
	Payments = newNode(payment.Entity.Kind, func(d *Domains) (bulkRead[uid.Payment, *payment.Payment], memoryRead[uid.Payment, *payment.Payment]) {
		return d.Payments.ByIDs, nil
	})
	APIKeys = newNode(session.APIKeyEntity.Kind, func(d *Domains) (bulkRead[uid.APIKey, *session.APIKey], memoryRead[uid.APIKey, *session.APIKey]) {
		return d.Sessions.APIKeysByIDs, nil
	})
	Events = newNode(uid.KindEvent, func(d *Domains) (bulkRead[uid.Event, *event.Event], memoryRead[uid.Event, *event.Event]) {
		return d.Log.ByIDs, nil
	})
	Services = newNode(registry.ServiceEntity.Kind, func(d *Domains) (bulkRead[uid.Service, *registry.View], memoryRead[uid.Service, *registry.View]) {
		return d.Registry.ServicesByIDs, d.Registry.PeekService
	})
	Instances = newNode(registry.InstanceEntity.Kind, func(d *Domains) (bulkRead[uid.Instance, *registry.Instance], memoryRead[uid.Instance, *registry.Instance]) {
		return d.Registry.InstancesByIDs, d.Registry.PeekInstance
	})
	DeadLetters = newNode(consumer.DeadLetterEntity.Kind, func(d *Domains) (bulkRead[uid.DeadLetter, *consumer.DeadLetter], memoryRead[uid.DeadLetter, *consumer.DeadLetter]) {
		return d.ConsumerAdmin.DeadLettersByIDs, nil
	})
)

// Nodes finds any node by its id.
var Nodes = newLoader(func(*Domains) (bulkRead[string, model.Node], memoryRead[string, model.Node]) { return readNodes, nil })

// Look-ups by the key of an entity that are not nodes themselves.
var (
	userDeletions = newLoader(func(d *Domains) (bulkRead[uid.User, bool], memoryRead[uid.User, bool]) {
		return d.Users.Deleted, d.Users.PeekDeleted
	})
	productStocks = newLoader(func(d *Domains) (bulkRead[uid.Product, *order.Stock], memoryRead[uid.Product, *order.Stock]) {
		return d.Products.Stocks, d.Products.PeekStock
	})
	instanceLeases = newLoader(func(d *Domains) (bulkRead[uid.Instance, registry.Lease], memoryRead[uid.Instance, registry.Lease]) {
		return d.Registry.Leases, nil
	})
	orderItems = newLoader(func(d *Domains) (bulkRead[uid.Order, []*order.Item], memoryRead[uid.Order, []*order.Item]) {
		return d.Orders.Items, d.Orders.PeekItems
	})
	orderPayments = newLoader(func(d *Domains) (bulkRead[uid.Order, *payment.Payment], memoryRead[uid.Order, *payment.Payment]) {
		return d.Payments.ByOrders, nil
	})
	paymentAttempts = newLoader(func(d *Domains) (bulkRead[uid.Payment, []*payment.Attempt], memoryRead[uid.Payment, []*payment.Attempt]) {
		return d.Payments.Attempts, nil
	})
	userSessions = newLoader(func(d *Domains) (bulkRead[uid.User, []*session.Session], memoryRead[uid.User, []*session.Session]) {
		return oneByOne(d.Sessions.Sessions), nil
	})
	userAPIKeys = newLoader(func(d *Domains) (bulkRead[uid.User, []*session.APIKey], memoryRead[uid.User, []*session.APIKey]) {
		return oneByOne(d.Sessions.APIKeys), nil
	})
)

// The edges of the graph, named by type and field: from the parent to the key of a
// loader, or to pages of a list.
var (
	OrderUser    = newEdge(Users, func(o *order.Order) uid.User { return o.UserID })
	OrderErased  = newEdge(userDeletions, func(o *order.Order) uid.User { return o.UserID }) // whether its user is deleted
	OrderItems   = newListEdge(orderItems, func(o *order.Order) uid.Order { return o.ID })
	OrderEvents  = newList(eventPages, func(o *order.Order) uid.Order { return o.ID })
	OrderPayment = newEdge(orderPayments, func(o *order.Order) uid.Order { return o.ID })
	ItemProduct  = newEdge(Products, func(i *order.Item) uid.Product { return i.ProductID })
	ProductStock = newEdge(productStocks, func(p *order.Product) uid.Product { return p.ID })
	UserOrders   = newList(orderPages, func(u *user.User) uid.User { return u.ID })
	EventSubject = newEdge(Nodes, func(e *event.Event) string { return e.SubjectID })

	ServiceInstances = newList(instancePages, func(v *registry.View) uid.Service { return v.ID })
	InstanceService  = newEdge(Services, func(i *registry.Instance) uid.Service { return i.ServiceID })
	InstanceLease    = newEdge(instanceLeases, func(i *registry.Instance) uid.Instance { return i.ID })

	PaymentOrder    = newEdge(Orders, func(p *payment.Payment) uid.Order { return p.OrderID })
	PaymentAttempts = newListEdge(paymentAttempts, func(p *payment.Payment) uid.Payment { return p.ID })

	SecurityEventUser = newEdge(Users, func(e *security.Event) uid.User { return e.UserID })

	ViewerUser     = newEdge(Users, func(v *model.Viewer) uid.User { return v.UserID })
	ViewerSessions = newListEdge(userSessions, func(v *model.Viewer) uid.User { return v.UserID })
	ViewerAPIKeys  = newListEdge(userAPIKeys, func(v *model.Viewer) uid.User { return v.UserID })
	ViewerOrders   = newList(orderPages, func(v *model.Viewer) uid.User { return v.UserID })
)

// OrderList are the arguments of a list of a user's orders. The filter's UserID is
// not used.
type OrderList struct {
	Filter order.Filter
	By     order.OrderBy
	Args   page.Args
}

func orderPages(d *Domains) (func(context.Context, []uid.User, OrderList) (map[uid.User]page.Page[*order.Order], error),
	func(context.Context, []uid.User, OrderList) (map[uid.User]int, error),
) {
	return func(ctx context.Context, users []uid.User, l OrderList) (map[uid.User]page.Page[*order.Order], error) {
			return d.Orders.ListByUsers(ctx, users, l.Filter, l.By, l.Args)
		}, func(ctx context.Context, users []uid.User, l OrderList) (map[uid.User]int, error) {
			return d.Orders.CountByUsers(ctx, users, l.Filter)
		}
}

func eventPages(d *Domains) (func(context.Context, []uid.Order, page.Args) (map[uid.Order]page.Page[*event.Event], error),
	func(context.Context, []uid.Order, page.Args) (map[uid.Order]int, error),
) {
	pages := func(ctx context.Context, orders []uid.Order, args page.Args) (map[uid.Order]page.Page[*event.Event], error) {
		args, err := cursor.DecodeArgs(ctx, args)
		if err != nil {
			return nil, err
		}
		found, err := d.Log.ListByOrders(ctx, orders, args)
		for id, p := range found {
			found[id] = cursor.EncodePage(ctx, p)
		}
		return found, err
	}
	return pages, func(ctx context.Context, orders []uid.Order, _ page.Args) (map[uid.Order]int, error) {
		return d.Log.CountByOrders(ctx, orders)
	}
}

// InstanceList are the arguments of a list of a service's instances.
type InstanceList struct {
	Status *registry.Status
	Args   page.Args
}

func instancePages(d *Domains) (func(context.Context, []uid.Service, InstanceList) (map[uid.Service]page.Page[*registry.Instance], error),
	func(context.Context, []uid.Service, InstanceList) (map[uid.Service]int, error),
) {
	return func(ctx context.Context, services []uid.Service, l InstanceList) (map[uid.Service]page.Page[*registry.Instance], error) {
			return d.Registry.InstancesByServices(ctx, services, l.Status, l.Args)
		}, func(ctx context.Context, services []uid.Service, l InstanceList) (map[uid.Service]int, error) {
			return d.Registry.CountByServices(ctx, services, l.Status)
		}
}

// oneByOne makes a bulk read of a read by one key, for an edge of the viewer, of which a
// response has only one.
func oneByOne[K comparable, V any](read func(context.Context, K) (V, error)) bulkRead[K, V] {
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

// RequireReadable returns FORBIDDEN for a user that the caller may not read, for an edge
// that is never null.
func RequireReadable(u *user.User, err error) (*user.User, error) {
	if err == nil && u == nil {
		err = fault.New(fault.Forbidden, "Reading users needs the scope %s.", auth.UsersRead)
	}
	return u, err
}
