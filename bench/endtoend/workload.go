package main

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"net/url"
	"strconv"
	"strings"
	"sync/atomic"
)

// A workload is a kind of request. Requests are numbered; those with the same number are equal
// on all targets, but for what must be new.
type workload struct {
	name    string
	repeats int                 // different requests; 0 if each one is new
	product func(i int) request // to the product
	peer    func(i int) request // to a hand-written handler
	want    string              // what the body of a response contains
	status  int                 // of a response
	same    bool                // the hand-written response is equal
}

// request is an HTTP request without its credential.
type request struct {
	method, path, body string
}

func get(path string) request            { return request{"GET", path, ""} }
func post(path string, body any) request { return request{"POST", path, marshal(body)} }
func graphql(query string, v any) request {
	return post("/graphql", map[string]any{"query": query, "variables": v})
}
func marshal(v any) string { text, _ := json.Marshal(v); return string(text) }
func workloadNames() (names []string) {
	for _, w := range new(sample).workloads() {
		names = append(names, w.name)
	}
	return names
}

// sample are the rows that requests ask for.
type sample struct {
	users  []string
	before []string // times
	skus   []string
	hot    []string // three SKUs with much stock
	run    string   // in names that must be new
}

// unique numbers what must be new.
var unique atomic.Int64

const (
	queryUser   = `query User($id: ID!) { user(id: $id) { id username name email } }`
	queryOrders = `query Orders($before: DateTime!) { orders(first: 50, filter: {placedBefore: $before}) { nodes {` + orderFields + ` user { id username name } } } }`
	queryNested = `query Nested($id: ID!) { user(id: $id) { id username name orders(first: 10) { nodes {` + orderFields + `} } } }`
	orderFields = ` id number status itemCount total { amount currency } items { sku name quantity total { amount currency } } `
	placeOrder  = `mutation Place($in: PlaceOrderInput!) { placeOrder(input: $in) { order { id number total { amount currency } } userErrors { code } } }`
)

// Numbers of different requests that workloads repeat.
const (
	pointReads = 2000
	listReads  = 32
	nestReads  = 500
	maxSKUs    = 200
)

func (s *sample) workloads() []*workload {
	user := func(i int) string { return s.users[i%len(s.users)] }
	before := func(i int) string { return s.before[i%len(s.before)] }
	return []*workload{
		{
			name: "W1 user by id", repeats: min(pointReads, len(s.users)), want: `{"data":{"user":{"id"`, same: true,
			product: func(i int) request { return graphql(queryUser, map[string]any{"id": user(i)}) },
			peer:    func(i int) request { return get("/user?id=" + user(i)) },
		},
		{
			name: "W2 50 orders with users and items", repeats: min(listReads, len(s.before)), want: `{"data":{"orders":{"nodes":[{`, same: true,
			product: func(i int) request { return graphql(queryOrders, map[string]any{"before": before(i)}) },
			peer:    func(i int) request { return get("/orders?before=" + url.QueryEscape(before(i))) },
		},
		{
			name: "W3 user with orders and items", repeats: min(nestReads, len(s.users)), want: `{"data":{"user":{"id"`, same: true,
			product: func(i int) request { return graphql(queryNested, map[string]any{"id": user(i)}) },
			peer:    func(i int) request { return get("/nested?id=" + user(i)) },
		},
		{name: "W4 order of 3 lines", want: `"number":"`, product: s.order(s.pickSKUs, true), peer: s.order(s.pickSKUs, false)},
		{name: "W4 order of 3 hot lines", want: `"number":"`, product: s.order(s.hotSKUs, true), peer: s.order(s.hotSKUs, false)},
		{
			name: "W5 GET /users/{id}", repeats: min(pointReads, len(s.users)), want: `{"id":"usr_`, same: true,
			product: func(i int) request { return get("/users/" + user(i)) },
			peer:    func(i int) request { return get("/users/" + user(i)) },
		},
		{
			name: "W5 GET /users?limit=50", repeats: 1, want: `[{"id":"usr_`, same: true,
			product: func(int) request { return get("/users?limit=50") },
			peer:    func(int) request { return get("/users?limit=50") },
		},
		{name: "W5 POST /users", want: `"message":"User created"`, status: 201, product: s.newUser, peer: s.newUser},
	}
}

func (s *sample) newUser(int) request {
	return post("/users", map[string]any{"username": s.run + "-" + strconv.FormatInt(unique.Add(1), 36)})
}

func (s *sample) pickSKUs() []string {
	i := rand.IntN(len(s.skus))
	j := (i + 1 + rand.IntN(len(s.skus)-2)) % len(s.skus)
	k := (j + 1) % len(s.skus)
	if k == i {
		k = (k + 1) % len(s.skus)
	}
	return []string{s.skus[i], s.skus[j], s.skus[k]}
}

func (s *sample) hotSKUs() []string { return s.hot }

type orderLine struct {
	SKU      string `json:"sku"`
	Quantity int    `json:"quantity"`
}

type orderInput struct {
	UserID string      `json:"userId"`
	Items  []orderLine `json:"items"`
}

func (s *sample) order(skus func() []string, byGraphQL bool) func(int) request {
	return func(int) request {
		in := orderInput{UserID: s.users[rand.IntN(len(s.users))]}
		for _, sku := range skus() {
			in.Items = append(in.Items, orderLine{sku, 1})
		}
		if byGraphQL {
			return graphql(placeOrder, map[string]any{"in": in})
		}
		return post("/order", in)
	}
}

// newWorkloads returns the workloads of the names.
func (s *setup) newWorkloads(names string) (chosen []*workload, err error) {
	for name := range strings.SplitSeq(names, ",") {
		found := len(chosen)
		for _, w := range s.sample.workloads() {
			if w.name == name || strings.HasPrefix(w.name, name+" ") || name == "" {
				if w.status == 0 {
					w.status = 200
				}
				chosen = append(chosen, w)
			}
		}
		if len(chosen) == found {
			return nil, fmt.Errorf("there is no workload %q; there are: %s", name, strings.Join(workloadNames(), ", "))
		}
	}
	return chosen, nil
}

// prepared returns the requests that make returns: made in advance if the workload repeats them.
func (w *workload) prepared(each func(int) request) func(int) request {
	if w.repeats == 0 {
		return each
	}
	all := list(w.repeats, each)
	return func(i int) request { return all[i%len(all)] }
}

func list(n int, one func(int) request) (all []request) {
	for i := range n {
		all = append(all, one(i))
	}
	return all
}
