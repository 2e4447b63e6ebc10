package cache

import (
	"encoding/json"
	"errors"

	"github.com/backplane-dev/backplane/internal/order"
	"github.com/backplane-dev/backplane/internal/uid"
	"github.com/backplane-dev/backplane/internal/user"
)

// entity declares how the rows of one kind are cached. It is all that the cache knows of them: a new
// entity is a declaration below, and a decorator of its store made of newTable or newRows.
type entity[K ~string, V any] struct {
	name    string                       // in the rows that events name, Redis keys and metrics
	kind    uid.Kind                     // of the ids, as declared, if they are subjects of events; else empty
	id      func(V) K                    // of the row
	version func(V) int                  // of the row; only rises
	size    func(V) int                  // approximate bytes of the value in process memory
	parse   func(data []byte) (V, error) // reads what encoding/json wrote
}

// The cached entities. Values are encoded as JSON.
var (
	users = entity[uid.User, *user.User]{
		name: user.Entity.Name, kind: user.Entity.Kind,
		id:      func(u *user.User) uid.User { return u.ID },
		version: func(u *user.User) int { return u.Version },
		size: func(u *user.User) int {
			return 250 + len(u.Username) + textLength(u.Email) + len(u.Name) + 32*len(u.Roles) + textLength(u.LegacyID)
		},
		parse: parseRow[user.User],
	}
	products = entity[uid.Product, *order.Product]{
		name: order.ProductEntity.Name, kind: order.ProductEntity.Kind,
		id:      func(p *order.Product) uid.Product { return p.ID },
		version: func(p *order.Product) int { return p.Version },
		size: func(p *order.Product) int {
			return 250 + len(p.SKU) + len(p.Name) + len(p.Description) + textLength(p.LegacyID)
		},
		parse: parseRow[order.Product],
	}
	stocks = entity[uid.Product, *order.Stock]{
		name:    "stock",
		id:      func(s *order.Stock) uid.Product { return s.ProductID },
		version: func(s *order.Stock) int { return s.Version },
		size:    func(*order.Stock) int { return 80 },
		parse:   parseRow[order.Stock],
	}
	orders = entity[uid.Order, *order.Order]{
		name: order.OrderEntity.Name, kind: order.OrderEntity.Kind,
		id:      func(o *order.Order) uid.Order { return o.ID },
		version: func(o *order.Order) int { return o.Version },
		size:    func(o *order.Order) int { return 350 + len(o.Note) + textLength(o.LegacyID) },
		parse:   parseOrder,
	}
	// items are the lines of an order. They never change once it is placed, so no event names them.
	items = entity[uid.Order, []order.Item]{
		name:    "items",
		id:      orderOf,
		version: func([]order.Item) int { return 1 },
		size: func(items []order.Item) (n int) {
			for _, it := range items {
				n += 200 + len(it.SKU) + len(it.Name)
			}
			return n
		},
		parse: parseItems,
	}
)

// orderOf returns the order of the lines; empty if they are of none, or of several.
func orderOf(items []order.Item) (id uid.Order) {
	for i, it := range items {
		if i > 0 && it.OrderID != id {
			return ""
		}
		id = it.OrderID
	}
	return id
}

// parseRow parses a row that is one JSON object.
func parseRow[V any](data []byte) (*V, error) {
	v := new(V)
	return v, json.Unmarshal(data, v)
}

func parseOrder(data []byte) (*order.Order, error) {
	o, err := parseRow[order.Order](data)
	return o.Loaded(), err
}

func parseItems(data []byte) (items []order.Item, err error) {
	err = json.Unmarshal(data, &items)
	return items, err
}

var errOtherRow = errors.New("the value is of another row")

// decode parses a value of Redis, and checks that it is of the row.
func (e entity[K, V]) decode(id K, data []byte) (V, error) {
	v, err := e.parse(data)
	if err == nil && e.id(v) != id {
		err = errOtherRow
	}
	return v, err
}

// textLength returns the length of an optional text.
func textLength(s *string) int {
	if s == nil {
		return 0
	}
	return len(*s)
}
