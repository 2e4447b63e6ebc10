package loader

import (
	"context"
	"encoding/json"

	"backplane/internal/event"
	"backplane/internal/page"
	"backplane/internal/uid"
)

// OrderEvents asks for a page of an order's history. Make it with EventsOf.
type OrderEvents struct {
	order uid.Order
	args  string // page.Args as text: what makes pages of different orders one query
}

// EventsOf asks for a page of the order's history.
func EventsOf(id uid.Order, args page.Args) OrderEvents {
	b, _ := json.Marshal(args) // plain data always encodes
	return OrderEvents{id, string(b)}
}

// orderEvents reads pages of many orders with one query for each distinct page:
// one, if all are asked for by the same field of a document.
func orderEvents(log *event.Log) func(context.Context, []OrderEvents) (map[OrderEvents]page.Page[*event.Event], error) {
	return func(ctx context.Context, keys []OrderEvents) (map[OrderEvents]page.Page[*event.Event], error) {
		byArgs := make(map[string][]uid.Order)
		for _, k := range keys {
			byArgs[k.args] = append(byArgs[k.args], k.order)
		}
		pages := make(map[OrderEvents]page.Page[*event.Event], len(keys))
		for text, orders := range byArgs {
			var args page.Args
			if err := json.Unmarshal([]byte(text), &args); err != nil {
				return nil, err
			}
			found, err := log.ListByOrders(ctx, orders, args)
			if err != nil {
				return nil, err
			}
			for id, p := range found {
				pages[OrderEvents{id, text}] = p
			}
		}
		return pages, nil
	}
}
