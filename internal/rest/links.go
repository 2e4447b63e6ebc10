package rest

import (
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"github.com/backplane-dev/backplane/internal/page"
)

// totalHeader says how many objects all pages of a list have.
const totalHeader = "X-Total-Count"

// totalText is the number of objects, or that there are more than are counted: a client that
// expects a number then fails, and does not take the limit for the end of the list.
func totalText(n int) string {
	if n > page.MaxCount {
		return ">" + strconv.Itoa(page.MaxCount)
	}
	return strconv.Itoa(n)
}

// pageLinks writes the links from a page of a list to others.
type pageLinks struct {
	path  string
	query url.Values        // of the request, without what says which page
	size  string            // of a page, as the client gave it; empty if it did not
	names map[string]string // of parameters, by argument of the list
	links []string
}

// pageLinks returns the links to the next, the previous, the first and the last page (RFC 8288),
// made of the parameters that the client used; empty if there is one page.
func (rt *route) pageLinks(r *http.Request, in *boundRequest, info *pageInfo) string {
	if info == nil || !info.HasNextPage && !info.HasPreviousPage {
		return ""
	}
	l := newPageLinks(r, rt, in)
	if w := in.walk; w != nil && w.size > 0 {
		l.addNumbered(w, info)
	} else {
		l.addByCursor(info, strconv.Itoa(in.pageSize()))
	}
	return strings.Join(l.links, ", ")
}

func newPageLinks(r *http.Request, rt *route, in *boundRequest) *pageLinks {
	l := &pageLinks{path: r.URL.EscapedPath(), query: url.Values{}, names: map[string]string{}}
	for _, arg := range []string{"first", "after", "last", "before"} {
		l.names[arg] = in.parameterOf(arg)
	}
	query, _ := queryParameters(r.URL) // bindRequest has parsed it
	for name, values := range query {
		switch name {
		case l.names["first"], l.names["last"]:
			l.size = values[0]
		case l.names["after"], l.names["before"]:
		default:
			l.query[name] = values
		}
	}
	if p := rt.skips; p != nil {
		l.query.Del(p.from.Offset)
		l.query.Del(p.from.Page)
	}
	return l
}

// addByCursor adds the links of a client that follows cursors.
func (l *pageLinks) addByCursor(info *pageInfo, size string) {
	if info.HasNextPage && info.EndCursor != nil {
		l.addCursor("next", "first", "after", *info.EndCursor)
	}
	if info.HasPreviousPage && info.StartCursor != nil {
		l.addCursor("prev", "last", "before", *info.StartCursor)
	}
	if l.names["after"] != "" && l.names["first"] != "" {
		l.add("first", l.names["first"], l.size)
	}
	if l.names["before"] != "" && l.names["last"] != "" {
		if l.size != "" {
			size = l.size
		}
		l.add("last", l.names["last"], size)
	}
}

// addCursor adds the link to the page at a cursor, if the operation has a parameter for it.
func (l *pageLinks) addCursor(rel, sizeArg, cursorArg, cursor string) {
	if l.names[cursorArg] != "" {
		l.add(rel, l.names[sizeArg], l.size, l.names[cursorArg], cursor)
	}
}

// addNumbered adds the links of a client that counts objects or pages. Behind the last object that
// can be reached so, the next page is at a cursor.
func (l *pageLinks) addNumbered(w *walk, info *pageInfo) {
	at := func(rel string, skip int) {
		l.add(rel, l.names["first"], l.size, w.name, strconv.Itoa(w.numberOf(skip)))
	}
	end := -1 // objects before the last page, if that can be reached
	if info.total > 0 && info.total <= page.MaxCount {
		end = (info.total - 1) / w.size * w.size
	}
	switch {
	case !info.HasNextPage:
	case w.skip+w.size <= page.MaxSkip:
		at("next", w.skip+w.size)
	case info.EndCursor != nil:
		l.addCursor("next", "first", "after", *info.EndCursor)
	}
	if w.skip > 0 {
		prev := max(0, w.skip-w.size)
		if end >= 0 {
			prev = min(prev, end)
		}
		at("prev", prev)
	}
	at("first", 0)
	if end >= 0 {
		at("last", end)
	}
}

// add adds a link with the parameters, of which those without a name or a value are left out.
func (l *pageLinks) add(rel string, parameters ...string) {
	query := url.Values{}
	maps.Copy(query, l.query)
	for i := 0; i+1 < len(parameters); i += 2 {
		if parameters[i] != "" && parameters[i+1] != "" {
			query.Set(parameters[i], parameters[i+1])
		}
	}
	target := l.path
	if len(query) > 0 {
		target += "?" + query.Encode()
	}
	l.links = append(l.links, fmt.Sprintf("<%s>; rel=%q", target, rel))
}

// parameterOf returns the name of the query parameter of an argument of the list, the one
// that the client used if there are several; empty if there is none.
func (b *boundRequest) parameterOf(argument string) string {
	p := b.rt.listParam(argument)
	if p == nil {
		return ""
	}
	if from := b.origin[p.Variable]; from.in == inQuery && from.name != p.from.Offset && from.name != p.from.Page {
		return from.name
	}
	if from := p.defaultSource(); from.in == inQuery {
		return from.name
	}
	return ""
}
