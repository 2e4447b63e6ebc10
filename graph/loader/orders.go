package loader

import (
	"context"
	"encoding/json"

	"backplane/internal/order"
	"backplane/internal/page"
	"backplane/internal/uid"
)

// UserOrders asks for a page of a user's orders. Make it with OrdersOf.
type UserOrders struct {
	user uid.User
	list string // the orderList as text: what makes two pages of different users one query
}

type orderList struct {
	Filter order.Filter
	By     order.By
	Args   page.Args
}

// OrdersOf asks for a page of the user's orders that match.
func OrdersOf(id uid.User, f order.Filter, by order.By, args page.Args) UserOrders {
	f.UserID = nil
	b, _ := json.Marshal(orderList{f, by, args}) // plain data always encodes
	return UserOrders{id, string(b)}
}

// userOrders reads pages of many users with one query for each distinct list:
// one, if all are asked for by the same field of a document.
func userOrders(s *order.Service) func(context.Context, []UserOrders) (map[UserOrders]page.Page[*order.Order], error) {
	return func(ctx context.Context, keys []UserOrders) (map[UserOrders]page.Page[*order.Order], error) {
		byList := make(map[string][]uid.User)
		for _, k := range keys {
			byList[k.list] = append(byList[k.list], k.user)
		}
		pages := make(map[UserOrders]page.Page[*order.Order], len(keys))
		for text, users := range byList {
			var list orderList
			if err := json.Unmarshal([]byte(text), &list); err != nil {
				return nil, err
			}
			found, err := s.ListByUsers(ctx, users, list.Filter, list.By, list.Args)
			if err != nil {
				return nil, err
			}
			for id, p := range found {
				pages[UserOrders{id, text}] = p
			}
		}
		return pages, nil
	}
}
