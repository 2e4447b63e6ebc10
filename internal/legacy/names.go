package legacy

import (
	"context"
	"strings"
)

// Bounds of the names that clients make up and Counter remembers.
const (
	maxParameters    = 20 // of a route that are counted by their names
	maxParameterName = 40 // bytes
	otherNames       = "(others)"
)

// CountIgnored counts a call of the route with a parameter of the query that was passed over: under the
// name of route and parameter, such as GET /users?colour, as if it were another route. The first
// of each name is logged. It never blocks.
func (c *Counter) CountIgnored(ctx context.Context, route, parameter string) {
	c.ignored.Add(1)
	name, fresh := c.nameParameter(route, shortenName(parameter))
	c.CountCall(ctx, route+"?"+name)
	if fresh {
		c.log.WarnContext(ctx, "a client of a legacy REST route sends a parameter that has no effect", "route", route, "parameter", name, "client", clientOf(ctx))
	}
}

// Ignored returns how many parameters were passed over since the start.
func (c *Counter) Ignored() int64 { return c.ignored.Load() }

// nameParameter returns the name to count a parameter under; fresh says that it is the first call with it.
func (c *Counter) nameParameter(route, parameter string) (name string, fresh bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	known := c.parameters[route]
	if known == nil {
		known = map[string]bool{}
		c.parameters[route] = known // routes are those of the server
	}
	if known[parameter] {
		return parameter, false
	}
	if len(known) >= maxParameters {
		return otherNames, false
	}
	known[parameter] = true
	return parameter, true
}

// shortenName keeps the characters of plain names, and bounds what is left.
func shortenName(name string) string {
	plain := strings.Map(func(r rune) rune {
		if strings.ContainsRune("_-.[]", r) || r >= '0' && r <= '9' || r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' {
			return r
		}
		return '*'
	}, name)
	if len(plain) > maxParameterName {
		return plain[:maxParameterName] + "…"
	}
	return plain
}
