package legacy

import (
	"context"
	"regexp"
	"strings"

	"github.com/backplane-dev/backplane/internal/auth"
	"github.com/backplane-dev/backplane/internal/uid"
)

// Bounds of the names that clients make up and Counter remembers.
const (
	maxParameters    = 20 // of a route that are counted by their names
	maxParameterName = 40 // bytes
	maxPaths         = 200
	maxUserPaths     = 20 // of one user
	maxSegments      = 6  // of a path
	otherNames       = "(others)"
)

// UnknownPath stands for calls of paths that are not served, and are not named.
const UnknownPath = "(unknown path)"

// unknownSuffix ends the name of a path that is not served.
const unknownSuffix = " (unknown)"

// madeUp reports whether a client made up a part of the route's name.
func madeUp(route string) bool {
	return strings.Contains(route, "?") || strings.HasSuffix(route, unknownSuffix)
}

// PlainRoute returns the name to count calls under when there is no room: that of the route or, if a client made
// up a part of it, UnknownPath. So the rows without room are bounded by the routes.
func PlainRoute(route string) string {
	if madeUp(route) {
		return UnknownPath
	}
	return route
}

// CountUnknown counts a call of a path that is not served, or not by the method: as GET /orders/{id}/lines (unknown), with
// placeholders for what looks like an id. Paths of anonymous callers have no names, as those of scanners are many,
// and so have those of a user beyond maxUserPaths. It never blocks.
func (c *Counter) CountUnknown(ctx context.Context, method, path string) {
	caller := auth.From(ctx)
	if caller == nil {
		c.addUsage(Usage{Route: UnknownPath, Client: Others, Calls: 1, LastSeenAt: c.now()})
		return
	}
	c.CountCall(ctx, c.namePath(caller.UserID, shortenMethod(method)+" "+shortenPath(path)+unknownSuffix))
}

// namePath returns the name to count a path under, which a user calls.
func (c *Counter) namePath(user uid.User, name string) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.paths[name]:
	case len(c.paths) >= maxPaths || c.pathsOf[user] >= maxUserPaths:
		return UnknownPath
	default:
		c.paths[name] = true
		c.pathsOf[user]++ // no more users than paths
	}
	return name
}

// shortenMethod keeps the methods of routes.
func shortenMethod(method string) string {
	switch method {
	case "GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS":
		return method
	}
	return "OTHER"
}

// shortenPath keeps the first segments of a path that are words, and puts {id} in place of others.
func shortenPath(path string) string {
	segments := strings.Split(strings.Trim(path, "/"), "/")
	end := ""
	if len(segments) > maxSegments {
		segments, end = segments[:maxSegments], "/…"
	}
	for i, s := range segments {
		if !word.MatchString(s) {
			segments[i] = "{id}"
		}
	}
	return "/" + strings.Join(segments, "/") + end
}

// word matches a segment of a path that is no id: a placeholder of a route, a word, or a version such as v1.
var word = regexp.MustCompile(`^(\{[a-z_]+\}|[A-Za-z][A-Za-z_.-]{0,29}|v[0-9])?$`)

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
