package client

import (
	"context"
	"encoding/json"
	"time"
)

// pageSize is how many instances are asked for at once. maxPages bounds a
// service: the registry has no more than 200,000 instances in all.
const (
	pageSize = 50
	maxPages = 4000
)

var readService = operation{"service", `query($name: String!, $first: Int!, $after: String) { service(name: $name) {
	version strategy cursor degraded { reason since }
	instances(first: $first, after: $after) {
		nodes { id version instanceId url weight status statusSince metadata incarnation }
		pageInfo { hasNextPage endCursor }
	} } }`}

// page is a service with a page of its instances.
type page struct {
	Version  int       `json:"version"`
	Strategy *Strategy `json:"strategy"`
	Cursor   *string   `json:"cursor"`
	Degraded *struct {
		Reason string    `json:"reason"`
		Since  time.Time `json:"since"`
	} `json:"degraded"`
	Instances *struct {
		Nodes []struct {
			ID      string `json:"id"`
			Version int    `json:"version"`
			described
		} `json:"nodes"`
		PageInfo struct {
			HasNextPage bool    `json:"hasNextPage"`
			EndCursor   *string `json:"endCursor"`
		} `json:"pageInfo"`
	} `json:"instances"`
}

// errUnready says that a node has no cursor yet.
var errUnready = &Error{Code: CodeUnavailable, Message: "The node has not read the event log yet; try again."}

// readSnapshot reads the whole service at one node: pages of another node might be older
// than the cursor to follow from, which is that of the first page.
func (c *Client) readSnapshot(ctx context.Context, node int, name string) (k *serviceState, cursor string, err error) {
	k = &serviceState{instances: map[string]versionedInstance{}}
	vars := map[string]any{"name": name, "first": pageSize}
	for range maxPages {
		p, err := c.readPage(ctx, node, vars)
		if err != nil {
			return nil, "", err
		}
		if cursor == "" {
			cursor = *p.Cursor
		}
		k.addPage(p)
		if !p.Instances.PageInfo.HasNextPage || p.Instances.PageInfo.EndCursor == nil {
			break
		}
		vars["after"] = *p.Instances.PageInfo.EndCursor
	}
	return k, cursor, nil
}

// readPage reads one page.
func (c *Client) readPage(ctx context.Context, node int, vars map[string]any) (p *page, err error) {
	err = c.callNode(ctx, node, readService, vars, func(field json.RawMessage) error { return json.Unmarshal(field, &p) })
	switch {
	case err != nil:
		return nil, err
	case p == nil:
		return nil, &Error{Code: CodeServiceNotFound, Message: "There is no such service."}
	case p.Instances == nil || p.Strategy == nil:
		return nil, &Error{Code: CodeForbidden, Message: "The token may not see the instances of the service."}
	case p.Cursor == nil:
		return nil, errUnready
	}
	return p, nil
}

var readEventCursor = operation{"eventCursor", `{ eventCursor }`}

// reachesDatabase returns nil if the node reaches its database, else an error. A node that does not
// answers reads from its memory, and does not know services that were defined since.
func (c *Client) reachesDatabase(ctx context.Context, node int) error {
	return c.callNode(ctx, node, readEventCursor, nil, func(json.RawMessage) error { return nil })
}

// addPage adds the instances of a page.
func (k *serviceState) addPage(p *page) {
	k.version, k.strategy, k.degradedSince = p.Version, *p.Strategy, time.Time{}
	if p.Degraded != nil && p.Degraded.Reason == "MASS_FAILURE" {
		k.degradedSince = p.Degraded.Since
	}
	for _, n := range p.Instances.Nodes {
		k.instances[n.ID] = versionedInstance{n.instance(n.ID), n.Version}
	}
}
