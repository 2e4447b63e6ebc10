package cache_test

import (
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/backplane-dev/backplane/internal/cache"
	"github.com/backplane-dev/backplane/internal/claim"
	"github.com/backplane-dev/backplane/internal/order"
	"github.com/backplane-dev/backplane/internal/secrets"
	"github.com/backplane-dev/backplane/internal/testenv"
	"github.com/backplane-dev/backplane/internal/uid"
	"github.com/backplane-dev/backplane/internal/validate"
)

// get returns the text of a key.
func (n *node) get(t *testing.T, key string) string {
	t.Helper()
	text, err := n.cache.RedisClient().Get(t.Context(), key).Result()
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// forge puts a text in a key, for ever, and has the node forget what it holds.
func (n *node) forge(t *testing.T, key, text string) {
	t.Helper()
	if err := n.cache.RedisClient().Set(t.Context(), key, text, 0).Err(); err != nil {
		t.Fatal(err)
	}
	n.cache.Clear()
}

// awaitRefill reads the product until Redis holds a value with an end in place of the text.
func (n *node) awaitRefill(t *testing.T, id uid.Product, key, text string) {
	t.Helper()
	testenv.Eventually(t, "a fill replaces the text", func() bool {
		n.cache.Clear()
		n.version(t, id)
		now, err := n.cache.RedisClient().Get(t.Context(), key).Result()
		life := n.cache.RedisClient().PTTL(t.Context(), key).Val()
		return err == nil && now != text && strings.HasPrefix(now, "v") && life > 0 && life <= 5*time.Minute
	})
}

// TestRedis_values_that_others_wrote_are_refused plays an attacker that can write to Redis and has no secret.
func TestRedis_values_that_others_wrote_are_refused(t *testing.T) {
	t.Parallel()
	lines := &record{}
	n := start(t, options{redis: testenv.Redis(t), log: slog.New(slog.NewTextHandler(lines, nil))})
	intruder := start(t, options{redis: testenv.Redis(t), cfg: cache.Config{Secret: [secrets.Size]byte{2}}})
	p, other := n.product(t, "cup", 1), n.product(t, "pot", 1)
	n.caughtUp(t, n)
	n.warm(t, p.ID)
	n.warm(t, other.ID)
	key, otherKey := n.cache.RedisKey("product", string(p.ID)), n.cache.RedisKey("product", string(other.ID))
	genuine, ofOther := n.get(t, key), n.get(t, otherKey)
	parts := strings.SplitN(genuine, ":", 3)
	cheap := strings.Replace(parts[2][32:], `"Minor":250`, `"Minor":1`, 1)
	if cheap == parts[2][32:] {
		t.Fatalf("the value has no price: %s", genuine)
	}
	refused := n.cache.Stats().Entities["product"].RedisCorrupt
	for name, text := range map[string]string{
		"another price":                   parts[0] + ":" + parts[1] + ":" + parts[2][:32] + cheap,
		"another price, version and time": "v999:" + "99999999999999:" + parts[2][:32] + cheap,
		"a higher version":                "v999:" + parts[1] + ":" + parts[2],
		"a later time":                    parts[0] + ":1" + parts[1] + ":" + parts[2],
		"digits moved to the time":        "v:1" + parts[1] + ":" + parts[2],
		"no MAC":                          parts[0] + ":" + parts[1] + ":" + cheap,
		"the format without a MAC":        "v999:5b4f3c21" + cheap,
		"the MAC of another secret":       intruder.cache.FormatValue(key, 999, []byte(cheap), time.Now()),
		"the value of another row":        ofOther,
		"the value of another entity":     n.cache.FormatValue(n.cache.RedisKey("stock", string(p.ID)), 999, []byte(cheap), time.Now()),
		"the value of another generation": n.cache.FormatValue(strings.Replace(key, ":product:", "x:product:", 1), 999, []byte(cheap), time.Now()),
		"a value with another case":       strings.ToUpper(genuine[:1]) + genuine[1:],
		"a fill token that never expires": "l999:x",
		"a tombstone of a high version":   "t0999:",
	} {
		n.forge(t, key, text)
		found, err := n.products.ByIDs(t.Context(), []uid.Product{p.ID})
		if err != nil || found[p.ID] == nil || found[p.ID].Price != eur || found[p.ID].Version != 1 || found[p.ID].SKU != "cup" {
			t.Errorf("with %s the node reads %+v, %v", name, found[p.ID], err)
		}
		if strings.HasPrefix(text, "t") {
			continue // it turns into a fill token with an end
		}
		n.awaitRefill(t, p.ID, key, text)
	}
	if got := n.cache.Stats().Entities["product"].RedisCorrupt - refused; got < 11 {
		t.Errorf("%d forged values were counted, want 11 or more", got)
	}
	if got := lines.count("was not written by this installation"); got != 1 {
		t.Errorf("forged values were logged %d times, want once", got)
	}
	n.forge(t, key, n.cache.FormatValue(key, 999, []byte(strings.Replace(cheap, `"Version":1`, `"Version":999`, 1)), time.Now()))
	if got := n.version(t, p.ID); got != 999 {
		t.Errorf("with a genuine MAC the node reads version %d, want 999: the forgeries above prove nothing", got)
	}
}

func TestRedis_owner_of_an_order_is_not_taken_from_others(t *testing.T) {
	t.Parallel()
	n := start(t, options{redis: testenv.Redis(t)})
	owner, thief := n.user(t), n.user(t)
	n.product(t, "cup", 5)
	wants := []order.Want{{SKU: "cup", Quantity: 1}}
	o, err := n.orders.Place(t.Context(), claim.None, owner.ID, wants, func(offers map[string]order.Offer) (*order.Order, error) {
		return order.Place(order.Details{UserID: owner.ID}, wants, offers, at)
	})
	if err != nil {
		t.Fatal(err)
	}
	n.caughtUp(t, n)
	key := n.cache.RedisKey("order", string(o.ID))
	testenv.Eventually(t, "Redis holds the order", func() bool {
		n.cache.Clear()
		_, err := n.orders.ByIDs(t.Context(), []uid.Order{o.ID})
		text, _ := n.cache.RedisClient().Get(t.Context(), key).Result()
		return err == nil && strings.HasPrefix(text, "v")
	})
	n.forge(t, key, strings.Replace(n.get(t, key), string(owner.ID), string(thief.ID), 1))
	found, err := n.orders.ByIDs(t.Context(), []uid.Order{o.ID})
	if err != nil || found[o.ID] == nil || found[o.ID].UserID != owner.ID {
		t.Errorf("the node reads %+v, %v; want the owner %s", found[o.ID], err, owner.ID)
	}
}

func TestRedis_values_expire_by_the_clock_of_the_reader(t *testing.T) {
	t.Parallel()
	const ttl = time.Minute
	n := start(t, options{redis: testenv.Redis(t), cfg: cache.Config{TTL: ttl}})
	p := n.product(t, "cup", 1)
	n.caughtUp(t, n)
	n.warm(t, p.ID)
	key := n.cache.RedisKey("product", string(p.ID))
	genuine := n.get(t, key)
	data := []byte(strings.SplitN(genuine, ":", 3)[2][32:])
	for name, c := range map[string]struct {
		age      time.Duration
		accepted bool
	}{
		"fresh":                           {0, true},
		"by a clock that is a bit ahead":  {-30 * time.Second, true},
		"about to expire":                 {ttl - 20*time.Second, true},
		"expired":                         {ttl, false},
		"of long ago":                     {1000 * time.Hour, false},
		"of a time that is yet to come":   {-2 * time.Minute, false},
		"of the end of time":              {-200 * 365 * 24 * time.Hour, false},
		"of a time before the Unix epoch": {100 * 365 * 24 * time.Hour, false},
	} {
		filled := time.Now().Add(-c.age)
		text := n.cache.FormatValue(key, 1, data, filled)
		n.forge(t, key, text)
		before := n.statements(func() { n.version(t, p.ID) })
		if accepted := before == 0; accepted != c.accepted {
			t.Errorf("a value %s was accepted: %v", name, accepted)
		}
		if until := n.cached.ExpiresAt(p.ID); c.accepted && until.After(filled.Add(ttl)) {
			t.Errorf("a value %s stays in process memory for %v, which outlives it by %v", name, time.Until(until), until.Sub(filled.Add(ttl)))
		}
		if !c.accepted {
			n.awaitRefill(t, p.ID, key, text)
		}
	}
}

func TestRedis_replay_of_an_old_value_ends_with_its_time(t *testing.T) {
	t.Parallel()
	const ttl = 2 * time.Second
	n := start(t, options{redis: testenv.Redis(t), cfg: cache.Config{TTL: ttl}})
	p := n.product(t, "cup", 1)
	n.caughtUp(t, n)
	n.warm(t, p.ID)
	key := n.cache.RedisKey("product", string(p.ID))
	old := n.get(t, key)
	if _, err := n.products.Update(t.Context(), claim.None, p.ID, func(p *order.Product) error {
		return p.Apply(order.ProductChange{Name: validate.Of("mug")}, at)
	}); err != nil {
		t.Fatal(err)
	}
	n.caughtUp(t, n)
	deadline := time.Now().Add(ttl)
	testenv.Eventually(t, "the old value is refused", func() bool {
		n.cache.DropMinimumVersions()
		n.forge(t, key, old)
		return n.version(t, p.ID) == 2 && time.Now().After(deadline)
	})
	for range 20 {
		n.cache.DropMinimumVersions()
		n.forge(t, key, old)
		if got := n.version(t, p.ID); got != 2 {
			t.Errorf("a value that has expired was accepted again: version %d", got)
		}
	}
}

func TestNew_wants_a_secret_for_Redis(t *testing.T) {
	t.Parallel()
	hub := prepare(t, options{paused: true}).hub
	_, err := cache.New(cache.Config{Bytes: 1, RedisURL: "redis://localhost:1"}, hub, slog.New(slog.DiscardHandler))
	if err == nil || !strings.Contains(err.Error(), "secret") {
		t.Errorf("New without a secret = %v, want an error", err)
	}
}
