package event_test

import (
	"reflect"
	"testing"
	"time"

	"github.com/backplane-dev/backplane/internal/event"
	"github.com/backplane-dev/backplane/internal/order"
	"github.com/backplane-dev/backplane/internal/uid"
)

// setField gives the field a value other than its zero value.
func setField(t *testing.T, field reflect.Value) {
	t.Helper()
	switch field.Kind() {
	case reflect.String:
		field.SetString("x")
	case reflect.Slice:
		field.Set(reflect.MakeSlice(field.Type(), 1, 1))
		setField(t, field.Index(0))
	case reflect.Pointer:
		field.Set(reflect.New(field.Type().Elem()))
		if at, isTime := reflect.TypeAssert[*time.Time](field); isTime {
			*at = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)
		}
	default:
		t.Fatalf("a field of kind %s: extend this test", field.Kind())
	}
}

// TestFilter_each_field_is_a_condition fails when a field of Filter has no condition: its
// events would be mixed with those of other filters.
func TestFilter_each_field_is_a_condition(t *testing.T) {
	t.Parallel()
	keys, dimensions := map[string]string{"": "the zero value"}, map[event.Dimension]string{}
	for i := range reflect.TypeFor[event.Filter]().NumField() {
		var f event.Filter
		name := reflect.TypeFor[event.Filter]().Field(i).Name
		setField(t, reflect.ValueOf(&f).Elem().Field(i))
		conditions := f.Conditions()
		if len(conditions) != 1 {
			t.Errorf("%s alone gives %d conditions, want 1", name, len(conditions))
			continue
		}
		if other, taken := dimensions[conditions[0].Dimension]; taken {
			t.Errorf("%s and %s have the dimension %q", name, other, conditions[0].Dimension)
		}
		if other, taken := keys[f.Key()]; taken {
			t.Errorf("%s and %s have the key %q", name, other, f.Key())
		}
		if f.Conditions().Match(&event.Event{OccurredAt: map[bool]time.Time{true: time.Now()}[name == "Until"]}) {
			t.Errorf("%s alone matches an empty event", name)
		}
		dimensions[conditions[0].Dimension], keys[f.Key()] = name, name
	}
	if zero := new(event.Filter); zero.Key() != "" || !zero.Conditions().Match(&event.Event{}) {
		t.Errorf("the zero value has the key %q and matches %v, want none and all", zero.Key(), zero.Conditions().Match(&event.Event{}))
	}
}

// TestFilter_Match takes each dimension's own value, and no other.
func TestFilter_Match(t *testing.T) {
	t.Parallel()
	at, later := time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC), time.Date(2026, 3, 1, 12, 0, 0, 1, time.UTC)
	e := &event.Event{Type: order.EventOrderPlaced, OccurredAt: at, Actor: "key_1", SubjectID: "ord_1", Related: []string{"usr_1", "srv_1"}}
	all := &event.Audience{All: []event.Type{order.EventOrderPlaced}}
	for name, f := range map[string]event.Filter{
		"type": {Types: []event.Type{order.EventOrderPaid, order.EventOrderPlaced}}, "subject": {SubjectID: "ord_1"}, "user": {UserID: "usr_1"},
		"order": {OrderID: "ord_1"}, "service": {ServiceID: "srv_1"}, "audience": {Audience: all},
		"actor": {Actor: "key_1"}, "since": {Since: &at}, "until": {Until: &later},
	} {
		if !f.Conditions().Match(e) {
			t.Errorf("the filter by %s does not match its event", name)
		}
	}
	for name, f := range map[string]event.Filter{
		"user": {SubjectID: "ord_1", UserID: "usr_2"}, "actor": {Actor: "usr_1"}, "since": {Since: &later}, "until": {Since: &at, Until: &at},
	} {
		if f.Conditions().Match(e) {
			t.Errorf("a filter matches whose condition for %s does not hold", name)
		}
	}
}

func TestFilter_Key_tells_audiences_apart(t *testing.T) {
	t.Parallel()
	for i := range reflect.TypeFor[event.Audience]().NumField() {
		a, b := event.Audience{Own: []event.Type{order.EventOrderPaid}}, event.Audience{Own: []event.Type{order.EventOrderPaid}}
		setField(t, reflect.ValueOf(&b).Elem().Field(i))
		f, g := event.Filter{Audience: &a}, event.Filter{Audience: &b}
		if f.Key() == g.Key() {
			t.Errorf("audiences that differ in %s have the same key", reflect.TypeFor[event.Audience]().Field(i).Name)
		}
	}
}

func TestFilter_Key_is_shared_by_audiences_that_see_the_same(t *testing.T) {
	t.Parallel()
	products := []event.Type{order.EventProductCreated}
	audience := func(user uid.User) *event.Audience {
		return &event.Audience{Own: []event.Type{order.EventOrderPaid}, Public: products, User: user}
	}
	for name, want := range map[string]struct {
		types  []event.Type
		shared bool
	}{"products": {products, true}, "orders": {[]event.Type{order.EventOrderPaid}, false}, "all": {nil, false}} {
		a, b := event.Filter{Types: want.types, Audience: audience("usr_1")}, event.Filter{Types: want.types, Audience: audience("usr_2")}
		if shared := a.Key() == b.Key(); shared != want.shared {
			t.Errorf("two customers who want %s share a key: %v, want %v", name, shared, want.shared)
		}
	}
}
