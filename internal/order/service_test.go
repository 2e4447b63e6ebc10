package order

import (
	"context"
	"testing"
	"time"

	"github.com/backplane-dev/backplane/internal/auth"
	"github.com/backplane-dev/backplane/internal/claim"
	"github.com/backplane-dev/backplane/internal/fault"
	"github.com/backplane-dev/backplane/internal/uid"
)

// oneOrder is a Store of one order. A call under a claim is a duplicate to it.
type oneOrder struct {
	Store

	order *Order
}

func (s oneOrder) Update(_ context.Context, cl claim.Claim, _ uid.Order, fn func(*Order) error) (*Order, error) {
	if cl != claim.None {
		return s.order, nil
	}
	return s.order, fn(s.order)
}

func (s oneOrder) Place(context.Context, claim.Claim, uid.User, []Want, func(map[string]Offer) (*Order, error)) (*Order, error) {
	return s.order, nil
}

// orderChanges are the changes of an order, and whether its customer may make them.
var orderChanges = map[string]struct {
	call    func(ctx context.Context, s *Service, cl claim.Claim, id uid.Order, ifVersion *int) (*Order, error)
	byOwner bool
}{
	"Cancel": {func(ctx context.Context, s *Service, cl claim.Claim, id uid.Order, v *int) (*Order, error) {
		return s.Cancel(ctx, cl, id, v, "")
	}, true},
	"Ship": {func(ctx context.Context, s *Service, cl claim.Claim, id uid.Order, v *int) (*Order, error) {
		return s.Ship(ctx, cl, id, v)
	}, false},
	"Deliver": {func(ctx context.Context, s *Service, cl claim.Claim, id uid.Order, v *int) (*Order, error) {
		return s.Deliver(ctx, cl, id, v)
	}, false},
	"RequestRefund": {func(ctx context.Context, s *Service, cl claim.Claim, id uid.Order, v *int) (*Order, error) {
		return s.RequestRefund(ctx, cl, id, v, "")
	}, true},
}

func TestService_asks_duplicate_calls_for_permission(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	owner := uid.NewUser(now)
	o := &Order{ID: uid.NewOrder(now), UserID: owner, Version: 3}
	s := NewService(oneOrder{order: o}, func() time.Time { return now })
	duplicate := claim.Call{Caller: owner, Key: "k"}
	for name, c := range orderChanges {
		for _, tt := range []struct {
			caller string
			p      *auth.Principal
			code   fault.Code
		}{
			{"a former STAFF", &auth.Principal{UserID: uid.NewUser(now), Roles: []auth.Role{auth.Customer}}, CodeOrderNotFound},
			{"its owner", &auth.Principal{UserID: owner, Roles: []auth.Role{auth.Customer}}, map[bool]fault.Code{false: fault.Forbidden}[c.byOwner]},
			{"STAFF", &auth.Principal{UserID: uid.NewUser(now), Roles: []auth.Role{auth.Staff}}, ""},
		} {
			tt.p.Credential = auth.SessionCredential("ses_1")
			got, err := c.call(auth.With(t.Context(), tt.p), s, duplicate, o.ID, nil)
			if tt.code == "" && (err != nil || got != o) || tt.code != "" && (!fault.Is(err, tt.code) || got != nil) {
				t.Errorf("a duplicate of %s by %s gives %v, %v; want %q", name, tt.caller, got, err, tt.code)
			}
		}
	}
}

func TestService_shows_no_order_to_keys_that_may_not_read(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
	owner, wrong := uid.NewUser(now), 9
	o := &Order{ID: uid.NewOrder(now), UserID: owner, Version: 3}
	s := NewService(oneOrder{order: o}, func() time.Time { return now })
	for _, reads := range []bool{false, true} {
		scopes := []auth.Scope{auth.OrdersWrite}
		if reads {
			scopes = append(scopes, auth.OrdersRead)
		}
		ctx := auth.With(t.Context(), &auth.Principal{UserID: owner, Roles: []auth.Role{auth.Staff}, Credential: auth.APIKeyCredential("key_1", scopes...)})
		for name, c := range orderChanges {
			if got, err := c.call(ctx, s, claim.Call{Key: "k"}, o.ID, nil); err != nil || (got != nil) != reads {
				t.Errorf("%s by a key with %v gives %v, %v", name, scopes, got, err)
			}
			_, err := c.call(ctx, s, claim.None, o.ID, &wrong)
			current, _ := fault.From(err).Current.(*Order)
			if !fault.Is(err, fault.VersionConflict) || (current != nil) != reads {
				t.Errorf("%s of a wrong version by a key with %v gives %v with %v", name, scopes, err, current)
			}
		}
		got, err := s.Place(ctx, claim.None, PlaceInput{Items: []Want{{SKU: "CUP", Quantity: 1}}})
		if err != nil || (got != nil) != reads {
			t.Errorf("Place by a key with %v gives %v, %v", scopes, got, err)
		}
	}
}
