package rest

import (
	"bytes"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync"

	"github.com/klauspost/compress/gzhttp"
	"github.com/klauspost/compress/gzip"
	"github.com/vektah/gqlparser/v2/ast"
)

// answer runs the operation of a request and sends what it gave. An error means
// that nothing was sent.
func (s *Shim) answer(w http.ResponseWriter, r *http.Request, rt *route) error {
	in, err := s.bind(r, rt)
	if err != nil {
		return err
	}
	res, err := s.perform(r, rt, in)
	if err != nil {
		return err
	}
	rt.send(w, r, in, res)
	return nil
}

// send writes the answer, or less of it where the client has it or does not want it.
func (rt *route) send(w http.ResponseWriter, r *http.Request, in *bound, res *result) {
	h := w.Header()
	h.Set("Cache-Control", "no-store") // it may hold tokens
	h.Add("Vary", "Accept, Authorization")
	body := rt.show(res)
	encoding := ""
	if len(body) >= minGzip && acceptsGzip(r) {
		encoding = "gzip"
	}
	reads := rt.op.Operation == ast.Query
	if rt.success != http.StatusNoContent && (reads || res.version > 0) {
		h.Set("Cache-Control", "private, no-cache")
		h.Set("ETag", entityTag(res.version, body, encoding))
	}
	if links := rt.links(r, in, res.page); links != "" {
		h.Add("Link", links)
	}
	if rt.success == http.StatusCreated {
		if id := shownID(body); id != "" {
			h.Set("Location", strings.TrimSuffix(r.URL.Path, "/")+"/"+url.PathEscape(id))
		}
	}
	switch {
	case rt.success == http.StatusNoContent:
		w.WriteHeader(rt.success)
	case reads && (r.Method == http.MethodGet || r.Method == http.MethodHead) && matchesNone(r, h.Get("ETag")):
		w.WriteHeader(http.StatusNotModified)
	case !reads && prefersMinimal(r):
		h.Set("Preference-Applied", "return=minimal")
		w.WriteHeader(minimal(rt.success))
	default:
		write(w, rt.success, body, encoding)
	}
}

// minimal is the status of an answer without its body.
func minimal(status int) int {
	if status == http.StatusOK {
		return http.StatusNoContent
	}
	return status
}

// show returns the body of an answer.
func (rt *route) show(res *result) []byte {
	out, _ := rt.answer.view.append(make([]byte, 0, len(res.value)+len(rt.answer.constants)+2), res.value)
	if len(rt.answer.constants) > 0 && out[len(out)-1] == '}' {
		out = out[:len(out)-1]
		if len(out) > 1 {
			out = append(out, ',')
		}
		out = append(append(out, rt.answer.constants...), '}')
	}
	return append(out, '\n')
}

// shownID returns the id of an object as text, empty if it shows none.
func shownID(object []byte) string { return strings.Trim(string(find(object, "id")), `"`) }

// write sends a body, which is not compressed again on its way.
func write(w http.ResponseWriter, status int, body []byte, encoding string) {
	h := w.Header()
	h.Set("Content-Type", mediaJSON)
	h.Set(gzhttp.HeaderNoCompression, "1")
	if encoding != "" {
		h.Set("Content-Encoding", encoding)
		body = compress(body)
	}
	h.Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(status)
	_, _ = w.Write(body) // what fails here is the connection
}

// minGzip is the length in bytes from which compressing pays.
const minGzip = 1024

var zippers = sync.Pool{New: func() any { return gzip.NewWriter(nil) }}

func compress(body []byte) []byte {
	var out bytes.Buffer
	z := zippers.Get().(*gzip.Writer)
	defer zippers.Put(z)
	z.Reset(&out)
	_, _ = z.Write(body) // a buffer takes everything
	_ = z.Close()
	return out.Bytes()
}

// links names the pages beside this one (RFC 8288), by the parameters that page
// forwards and backwards.
func (rt *route) links(r *http.Request, in *bound, page *pageInfo) string {
	if page == nil {
		return ""
	}
	var links []string
	if page.HasNextPage && page.EndCursor != nil {
		links = rt.link(links, r, in, "next", "first", "after", *page.EndCursor)
	}
	if page.HasPreviousPage && page.StartCursor != nil {
		links = rt.link(links, r, in, "prev", "last", "before", *page.StartCursor)
	}
	return strings.Join(links, ", ")
}

// link adds the link to a page, if the operation can be asked for it.
func (rt *route) link(links []string, r *http.Request, in *bound, rel, sizeArg, cursorArg, cursor string) []string {
	names := map[string]string{} // of parameters, by argument
	for _, arg := range []string{"first", "after", "last", "before"} {
		names[arg] = in.parameterOf(arg)
	}
	if names[cursorArg] == "" {
		return links
	}
	query, _ := parameters(r.URL) // it was read before
	next := url.Values{}
	size := ""
	for name, values := range query {
		switch name {
		case names["first"], names["last"]:
			size = values[0]
		case names["after"], names["before"]:
		default:
			next[name] = values
		}
	}
	if size != "" && names[sizeArg] != "" {
		next.Set(names[sizeArg], size)
	}
	next.Set(names[cursorArg], cursor)
	return append(links, fmt.Sprintf("<%s?%s>; rel=%q", r.URL.EscapedPath(), next.Encode(), rel))
}

// parameterOf returns the name of the parameter that gives an argument of the list,
// the one that the client used if there are several; empty if there is none.
func (b *bound) parameterOf(argument string) string {
	fields := b.rt.answer.fields
	arg := fields[len(fields)-2].Arguments.ForName(argument)
	if arg == nil || arg.Value.Kind != ast.Variable {
		return ""
	}
	if from := b.origin[arg.Value.Raw]; from.in == inQuery {
		return from.name
	}
	return ""
}
