package rest

import (
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"github.com/vektah/gqlparser/v2/ast"
)

// serveOperation runs the operation of a request and sends its result. An error means
// that nothing was sent.
func (s *Shim) serveOperation(w http.ResponseWriter, r *http.Request, rt *route) error {
	in, err := s.bindRequest(r, rt)
	if err != nil {
		return err
	}
	res, err := s.runChecked(r, rt, in)
	if err != nil {
		return err
	}
	rt.sendResult(w, r, in, res)
	return nil
}

// sendResult writes the result; without a body if the client has it or does not want it.
func (rt *route) sendResult(w http.ResponseWriter, r *http.Request, in *boundRequest, res *result) {
	h := w.Header()
	h.Set("Cache-Control", "no-store") // it may hold tokens
	h.Add("Vary", "Accept, Authorization")
	body := rt.renderBody(res)
	reads := rt.op.Operation == ast.Query
	if rt.success != http.StatusNoContent && (reads || res.version > 0) {
		h.Set("Cache-Control", "private, no-cache")
		h.Set("ETag", entityTag(res.version, body))
	}
	if links := rt.pageLinks(r, in, res.page); links != "" {
		h.Set("Link", links+", "+h.Get("Link")) // in front, for programs that read the first one
	}
	if res.page != nil && res.page.total >= 0 {
		h.Set(totalHeader, totalText(res.page.total))
	}
	if rt.success == http.StatusCreated {
		if id := shownID(body); id != "" {
			h.Set("Location", strings.TrimSuffix(r.URL.Path, "/")+"/"+url.PathEscape(id))
		}
	}
	has := ""
	if reads && (r.Method == http.MethodGet || r.Method == http.MethodHead) {
		has = matchingTag(r, h.Get("ETag"), acceptedEncodings(r))
	}
	switch {
	case rt.success == http.StatusNoContent:
		w.WriteHeader(rt.success)
	case has != "":
		h.Set("ETag", has)
		w.WriteHeader(http.StatusNotModified)
	case !reads && prefersMinimal(r):
		h.Set("Preference-Applied", "return=minimal")
		w.WriteHeader(minimalStatus(rt.success))
	default:
		writeBody(w, rt.success, body)
	}
}

// minimalStatus is the status of a response without its body.
func minimalStatus(status int) int {
	if status == http.StatusOK {
		return http.StatusNoContent
	}
	return status
}

// renderBody returns the body of a response.
func (rt *route) renderBody(res *result) []byte {
	out, _ := rt.answer.view.appendValue(make([]byte, 0, len(res.value)+len(rt.answer.constants)+2), res.value)
	if len(rt.answer.constants) > 0 && out[len(out)-1] == '}' {
		out = out[:len(out)-1]
		if len(out) > 1 {
			out = append(out, ',')
		}
		out = append(append(out, rt.answer.constants...), '}')
	}
	return append(out, '\n')
}

// shownID returns the id of a rendered object as text, empty if it has none.
func shownID(object []byte) string { return strings.Trim(string(findMember(object, "id")), `"`) }

func writeBody(w http.ResponseWriter, status int, body []byte) {
	w.Header().Set("Content-Type", mediaJSON)
	w.Header().Set("Content-Length", strconv.Itoa(len(body)))
	w.WriteHeader(status)
	_, _ = w.Write(body) //nolint:gosec // G705: it is JSON, and is sent as such; only the connection can fail
}
