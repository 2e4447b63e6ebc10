package consistency

import (
	"context"
	"fmt"
	"iter"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/backplane-dev/backplane/internal/auth"
	"github.com/backplane-dev/backplane/internal/claim"
	"github.com/backplane-dev/backplane/internal/testenv"
	"github.com/backplane-dev/backplane/internal/uid"
	"github.com/backplane-dev/backplane/internal/user"
	"github.com/backplane-dev/backplane/internal/validate"
)

// staleness is how long after its commit a change may stay unseen through another
// node than the one that wrote it.
const staleness = 2 * time.Second

// seen is that a client saw or made a version of an entity through a node. Times
// are measured by the client, from one start for all.
type seen struct {
	client, node int
	entity       string
	version      int // only ever grows
	content      string
	write        bool
	began, ended time.Duration
}

// history is what each client has seen, in its order.
type history [][]seen

// check returns what must not be. A client never sees a version older than one that
// it has seen or written through the same node; what a node has confirmed as written
// it shows to every client; no client sees a version older than one that was known to
// any client for longer than the bound; and one version has one content.
func (h history) check(bound time.Duration) (wrong []string) {
	wrong = append(wrong, h.backward()...)
	wrong = append(wrong, h.forked()...)
	anyClient, nodes := h.known(func(seen) bool { return true }, noNode), h.known(func(s seen) bool { return s.write }, byNode)
	for s := range h.all() {
		if v := anyClient[noNode(s)].at(s.began - bound); s.version < v {
			wrong = append(wrong, fmt.Sprintf("%v, though %d was known for longer than %v", s, v, bound))
		}
		if v := nodes[byNode(s)].at(s.began); s.version < v {
			wrong = append(wrong, fmt.Sprintf("%v, though the node had confirmed %d as written", s, v))
		}
	}
	return wrong
}

// String says what was seen.
func (s seen) String() string {
	return fmt.Sprintf("client %d got version %d of %s through node %d, asked at %v", s.client, s.version, s.entity, s.node, s.began)
}

func (h history) all() iter.Seq[seen] {
	return func(yield func(seen) bool) {
		for _, client := range h {
			for _, s := range client {
				if !yield(s) {
					return
				}
			}
		}
	}
}

// site is an entity, as one node or (with -1) any client knows it.
type site struct {
	entity string
	node   int
}

func noNode(s seen) site { return site{s.entity, -1} }
func byNode(s seen) site { return site{s.entity, s.node} }

// backward finds clients that went back to an older version at one node. What one
// answer shows was read at the same time, in no order.
func (h history) backward() (wrong []string) {
	for _, client := range h {
		newest := map[site]int{}
		for answer := range answers(client) {
			for _, s := range answer {
				if v := newest[byNode(s)]; s.version < v {
					wrong = append(wrong, fmt.Sprintf("%v, after it had got %d there", s, v))
				}
			}
			for _, s := range answer {
				newest[byNode(s)] = max(newest[byNode(s)], s.version)
			}
		}
	}
	return wrong
}

// answers yields what a client has seen, answer by answer.
func answers(client []seen) iter.Seq[[]seen] {
	return func(yield func([]seen) bool) {
		for len(client) > 0 {
			n := 1
			for n < len(client) && client[n].began == client[0].began {
				n++
			}
			if !yield(client[:n]) {
				return
			}
			client = client[n:]
		}
	}
}

// forked finds versions with two contents.
func (h history) forked() (wrong []string) {
	type version struct {
		entity string
		number int
	}
	contents := map[version]string{}
	for s := range h.all() {
		v := version{s.entity, s.version}
		if c, ok := contents[v]; ok && c != s.content {
			wrong = append(wrong, fmt.Sprintf("%v with the content %q, others with %q", s, s.content, c))
		}
		contents[v] = s.content
	}
	return wrong
}

// growth is how a version grew, by the time at which it was known.
type growth []seen

// at returns the newest version that was known at the time.
func (g growth) at(t time.Duration) int {
	n, _ := slices.BinarySearchFunc(g, t, func(s seen, t time.Duration) int {
		if s.ended <= t {
			return -1
		}
		return 1
	})
	if n == 0 {
		return 0
	}
	return g[n-1].version
}

// known returns for each site how what was seen of it grew.
func (h history) known(counts func(seen) bool, where func(seen) site) map[site]growth {
	all := map[site]growth{}
	for s := range h.all() {
		if counts(s) {
			all[where(s)] = append(all[where(s)], s)
		}
	}
	for _, g := range all {
		slices.SortFunc(g, func(a, b seen) int { return int(a.ended - b.ended) })
		for i := 1; i < len(g); i++ {
			g[i].version = max(g[i].version, g[i-1].version)
		}
	}
	return all
}

func TestHistory_check_finds_each_kind_of_violation(t *testing.T) {
	t.Parallel()
	const s = time.Second
	get := func(client, node, version int, at time.Duration) seen {
		return seen{client, node, "user", version, fmt.Sprint("v", version), false, at, at + s/10}
	}
	put := func(client, node, version int, at time.Duration) seen {
		w := get(client, node, version, at)
		w.write = true
		return w
	}
	forged := get(1, 1, 1, 2*s)
	forged.content = "of another client"
	tests := []struct {
		name  string
		h     history
		wrong string // part of the one thing that is wrong; empty for nothing
	}{
		{"nothing seen", nil, ""},
		{"versions that grow", history{{get(0, 0, 1, 0), put(0, 0, 2, s), get(0, 0, 2, 2*s)}}, ""},
		{"an older version through another node, soon after", history{{put(0, 0, 2, 0), get(0, 1, 1, s)}}, ""},
		{"an older version through another node, too late", history{{put(0, 0, 2, 0), get(0, 1, 1, 3*s)}}, "known for longer"},
		{"an older version than another client has read, too late", history{{get(0, 0, 2, 0)}, {get(1, 1, 1, 3*s)}}, "known for longer"},
		{"an older version than read before at the node", history{{get(0, 1, 2, 0), get(0, 1, 1, s)}}, "after it had got 2 there"},
		{"an older version than another client has read at the node, soon after", history{{get(0, 0, 2, 0)}, {get(1, 0, 1, s)}}, ""},
		{"an older version than another client has written at the node", history{{put(0, 0, 2, 0)}, {get(1, 0, 1, s)}}, "confirmed 2 as written"},
		{"an older version, asked for before the write was confirmed", history{{put(0, 0, 2, 0)}, {get(1, 0, 1, s/20)}}, ""},
		{"one version with two contents", history{{get(0, 0, 1, 0)}, {forged}}, "of another client"},
	}
	for _, tt := range tests {
		got := tt.h.check(staleness)
		if (tt.wrong == "") != (len(got) == 0) || tt.wrong != "" && !strings.Contains(strings.Join(got, "\n"), tt.wrong) {
			t.Errorf("%s: check found %q, want %q", tt.name, got, tt.wrong)
		}
	}
}

// unversionedCache is a naive cache: a fill replaces
// whatever is there. Filling, if it is not nil, is called before each fill.
type unversionedCache struct {
	user.Store

	filling func()
	mu      sync.Mutex
	held    map[uid.User]*user.User
}

// ByIDs implements user.Store.
func (c *unversionedCache) ByIDs(ctx context.Context, ids []uid.User) (map[uid.User]*user.User, error) {
	c.mu.Lock()
	u := c.held[ids[0]]
	c.mu.Unlock()
	if u != nil {
		return map[uid.User]*user.User{u.ID: u}, nil
	}
	found, err := c.Store.ByIDs(ctx, ids)
	if c.filling != nil {
		c.filling()
	}
	c.put(found[ids[0]])
	return found, err
}

// Update implements user.Store.
func (c *unversionedCache) Update(ctx context.Context, cl claim.Claim, id uid.User, fn func(*user.User) error) (*user.User, error) {
	u, err := c.Store.Update(ctx, cl, id, fn)
	c.put(u)
	return u, err
}

func (c *unversionedCache) put(u *user.User) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if u != nil {
		c.held[u.ID] = u
	}
}

// TestHistory_check_finds_an_unversioned_cache lets a reader fill the cache with what it
// read before a write that the reader has been told of since.
func TestHistory_check_finds_an_unversioned_cache(t *testing.T) {
	t.Parallel()
	cache := &unversionedCache{Store: testenv.DB(t).Users(), held: map[uid.User]*user.User{}}
	users, start := user.NewService(cache, nil, time.Now), time.Now()
	ada, err := users.SignUp(t.Context(), user.Profile{Username: "ada"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	ctx := auth.With(t.Context(), &auth.Principal{UserID: ada.ID, Credential: auth.SessionCredential("ses_1")})
	h := make(history, 2)
	note := func(client int, began time.Duration, write bool, u *user.User) {
		h[client] = append(h[client], seen{client, 0, "ada", u.Version, u.Name, write, began, time.Since(start)})
	}
	read := func(client int) {
		began := time.Since(start)
		found, err := users.ByIDs(ctx, []uid.User{ada.ID})
		if err != nil {
			t.Error(err)
			return
		}
		note(client, began, false, found[ada.ID])
	}
	cache.filling = func() {
		cache.filling = nil
		began := time.Since(start)
		u, err := users.Update(ctx, claim.None, ada.ID, nil, user.Change{Name: validate.Of("Ada")})
		if err != nil {
			t.Error(err)
			return
		}
		note(1, began, true, u)
	}
	read(0) // between its read and its fill the other client writes
	read(1)
	if wrong := h.check(staleness); len(wrong) == 0 {
		t.Errorf("check found nothing wrong with %v", h)
	}
}
