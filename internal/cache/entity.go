package cache

import (
	"encoding/json"
	"errors"

	"github.com/backplane-dev/backplane/internal/uid"
)

// The entities as touched rows name them. Items are lines of orders: they never
// change once their order is placed, so that no row names them.
const (
	entityUser    = "user"
	entityProduct = "product"
	entityStock   = "stock"
	entityOrder   = "order"
	entityItems   = "items"
)

// entityOf returns the entity of a subject of events, "" if none is kept.
func entityOf(id string) string {
	switch kind, _ := uid.KindOf(id); kind {
	case uid.KindUser:
		return entityUser
	case uid.KindProduct:
		return entityProduct
	case uid.KindOrder:
		return entityOrder
	default:
		return ""
	}
}

var errOther = errors.New("the value is of another row")

// decodeJSON reads a value that encoding/json wrote, and checks whose it is.
func decodeJSON[K comparable, V any](idOf func(*V) K) func(K, []byte) (*V, error) {
	return func(id K, data []byte) (*V, error) {
		v := new(V)
		if err := json.Unmarshal(data, v); err != nil {
			return nil, err
		}
		if idOf(v) != id {
			return nil, errOther
		}
		return v, nil
	}
}

// length of an optional text.
func length(s *string) int {
	if s == nil {
		return 0
	}
	return len(*s)
}
