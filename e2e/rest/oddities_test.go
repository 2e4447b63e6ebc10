package rest

import (
	"crypto/rand"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"unicode/utf16"
)

// What is odd in a request and yet legal: it must be answered as its plain form is.

// spaces are what JSON may have between its tokens.
var spaces = []string{"", "", "", " ", "\n", "\t", "\r\n  "}

// oddJSON writes a value in an odd form.
func (g *generator) oddJSON(v any) string {
	text := g.oddValue(v) + oneOf(g, spaces...)
	if g.sometimes(4) {
		return "\uFEFF" + text
	}
	return oneOf(g, spaces...) + text
}

func (g *generator) oddValue(v any) string {
	space := func() string { return oneOf(g, spaces...) }
	switch v := v.(type) {
	case int:
		return g.oddNumber(v)
	case string:
		return g.oddText(v)
	case []any:
		var items []string
		for _, item := range v {
			items = append(items, space()+g.oddValue(item)+space())
		}
		return "[" + space() + strings.Join(items, ",") + "]"
	case map[string]any:
		var members []string
		names := slices.Sorted(maps.Keys(v))
		g.Shuffle(len(names), func(i, j int) { names[i], names[j] = names[j], names[i] })
		for _, name := range names {
			members = append(members, space()+g.oddText(name)+space()+":"+space()+g.oddValue(v[name])+space())
		}
		return "{" + space() + strings.Join(members, ",") + "}"
	}
	text, _ := json.Marshal(v) // a value of the generator
	return string(text)
}

// oddNumber writes a whole number with a fraction or an exponent.
func (g *generator) oddNumber(n int) string {
	digits := strconv.Itoa(n)
	forms := []string{digits, digits + ".0", digits + ".000", digits + "e0", digits + "E+0", digits + ".0e0"}
	switch {
	case n == 0:
		forms = append(forms, "-0", "-0.0", "0e7", "0E-02")
	case n%10 == 0:
		forms = append(forms, strconv.Itoa(n/10)+"e1", strconv.Itoa(n/10)+"E+01")
	default:
		forms = append(forms, digits+"0e-1", digits+"00E-02")
	}
	return oneOf(g, forms...)
}

// oddText writes a text with escapes that it does not need.
func (g *generator) oddText(s string) string {
	if len(s) > 1000 {
		text, _ := json.Marshal(s)
		return string(text)
	}
	var out strings.Builder
	out.WriteByte('"')
	for _, r := range s {
		switch {
		case r == '/' && g.sometimes(2):
			out.WriteString(`\/`)
		case r < ' ' || r == '"' || r == '\\' || g.sometimes(4):
			for _, unit := range utf16.Encode([]rune{r}) {
				fmt.Fprintf(&out, oneOf(g, `\u%04x`, `\u%04X`), unit)
			}
		default:
			out.WriteRune(r)
		}
	}
	out.WriteByte('"')
	return out.String()
}

// oddQuery writes parameters in another order, with escapes that they do not need.
func (g *generator) oddQuery(query url.Values) string {
	var pairs []string
	for name, values := range query {
		for _, v := range values {
			pairs = append(pairs, g.oddEscape(name, true)+"="+g.oddEscape(v, true))
		}
	}
	slices.Sort(pairs)
	g.Shuffle(len(pairs), func(i, j int) { pairs[i], pairs[j] = pairs[j], pairs[i] })
	return oneOf(g, "", "", "&") + strings.Join(pairs, oneOf(g, "&", "&", "&&")) + oneOf(g, "", "", "&")
}

// oddEscape writes a text for a path or a query, with escapes that it does not need.
func (g *generator) oddEscape(s string, inQuery bool) string {
	var out strings.Builder
	for i := range len(s) {
		c := s[i]
		plain := 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || strings.IndexByte("-_~", c) >= 0
		switch {
		case c == ' ' && inQuery && g.sometimes(2):
			out.WriteByte('+')
		case plain && !g.sometimes(4):
			out.WriteByte(c)
		default:
			fmt.Fprintf(&out, oneOf(g, "%%%02x", "%%%02X"), c)
		}
	}
	return out.String()
}

// Headers, those that the server must take and those that it may refuse.
var (
	legalAccept = [][]string{
		{"*/*"}, {"application/json"}, {"APPLICATION/Json"}, {"application/json;charset=utf-8"}, {"application/problem+json, application/json"}, {"application/*;q=0.1"},
		{"text/html;q=0.9, */*;q=0.1"}, {"application/json ; q=0.5"}, {"text/html", "application/json;q=0.001"}, {"*/*;q=0, application/json"}, {""}, {"application/json;Q=1.000"}, {",application/json,"},
		{`text/html;level="a,b", application/json`},
	}
	otherAccept     = [][]string{{"text/html"}, {"application/json;q=0"}, {"nonsense"}, {"application/json;q=0, */*"}, {"application/json;q=2"}, {";;;"}}
	legalTypes      = []string{"application/json", "Application/JSON", "application/json;charset=utf-8", `application/json; charset="UTF-8"`, "application/json ;charset=utf-8", "application/json;x=y", "application/json; charset=Utf8"}
	otherTypes      = []string{"text/plain", "application/json; charset=latin1", ";", "application/jsonx", "application/json; charset", "multipart/form-data; boundary=x", "application/x-www-form-urlencoded"}
	legalPrefer     = []string{"return=minimal", `return="minimal"`, "RETURN=minimal", "return=minimal; foo=bar", "respond-async, return=representation", "handling=lenient", "wait=10", "return = minimal"}
	legalKeys       = []string{`"quoted"`, "a b", "~!@#$%^&*()", strings.Repeat("k", 200)}
	otherKeys       = []string{strings.Repeat("k", 201), "ä", ""}
	otherConditions = []string{"nonsense", `"a`, "99999999999999999999", `""`, `W/`, `"1" "2"`, ","}
)

// addHeaders adds those that concern no object.
func (g *generator) addHeaders(req *request) {
	req.fair = true
	switch g.IntN(25) {
	case 0: // an anonymous caller
	case 1:
		req.header.Set("Authorization", oneOf(g, "Bearer nonsense", "Bearer", "Basic eDp5", ""))
	default:
		req.header.Set("Authorization", oneOf(g, "Bearer ", "Bearer ", "bearer ", "BEARER ")+g.f.root.Token)
	}
	if g.sometimes(3) {
		req.header["Accept"] = oneOf(g, legalAccept...)
	} else if g.sometimes(30) {
		req.header["Accept"], req.fair = oneOf(g, otherAccept...), false
	}
	switch {
	case req.hasBody && g.sometimes(3):
		req.header.Set("Content-Type", oneOf(g, legalTypes...))
	case g.sometimes(30):
		req.header.Set("Content-Type", oneOf(g, otherTypes...))
		req.fair = false
	case req.method == http.MethodPatch && g.sometimes(3):
		req.header.Set("Content-Type", oneOf(g, "application/merge-patch+json", "application/Merge-Patch+JSON; charset=utf-8"))
	}
	if g.sometimes(4) {
		req.header.Set("Prefer", oneOf(g, legalPrefer...))
	}
	switch {
	case g.sometimes(3):
		req.header.Set("Idempotency-Key", "key "+rand.Text()) // a new one each time that a seed is played
	case g.sometimes(8):
		req.header.Set("Idempotency-Key", oneOf(g, legalKeys...))
	case g.sometimes(25):
		req.header.Set("Idempotency-Key", oneOf(g, otherKeys...))
	}
}

// condition is what a request must find stored, as far as the test knows.
type condition int

const (
	unknown condition = iota
	holds
	fails
)

// addConditions adds If-Match and If-None-Match to a change; tag is the ETag of what is stored, empty
// if it is not known.
func (g *generator) addConditions(req *request, tag string) {
	version, _, _ := strings.Cut(strings.Trim(tag, `"`), "-")
	known := version != "" && version != "0"
	match, noneMatch := "", ""
	switch {
	case !g.sometimes(2):
		return
	case known && g.IntN(5) < 2:
		match = oneOf(g, tag, "W/"+tag, `"`+version+`"`, version, "*", `"999999", `+tag, tag+` , "1x"`, ` `+tag, `"999999"`, `W/"999999-abc"`, `"none"`, `"none", "999999"`)
		req.condition = holds
		if match != "*" && !strings.Contains(match, tag) && match != version && match != `"`+version+`"` {
			req.condition = fails
		}
	case known && g.IntN(3) < 2:
		noneMatch = oneOf(g, tag, "W/"+tag, `"`+version+`"`, "*", `"none", `+tag, tag+`,"none"`, `"999999"`, `W/"none"`, `"none", "other"`, `"999999-abc"`)
		req.condition = holds
		if noneMatch == "*" || strings.Contains(noneMatch, tag) || noneMatch == `"`+version+`"` {
			req.condition = fails
		}
	case !g.sometimes(4):
		return
	case g.sometimes(2):
		match = oneOf(g, append(otherConditions, `"1"`, "*")...)
	default:
		noneMatch = oneOf(g, append(otherConditions, `"1"`, "*")...)
	}
	for name, value := range map[string]string{"If-Match": match, "If-None-Match": noneMatch} {
		if first, rest, several := strings.Cut(value, ", "); several && g.sometimes(2) {
			req.header[name] = []string{first, rest}
		} else if value != "" {
			req.header.Set(name, value)
		}
	}
}
