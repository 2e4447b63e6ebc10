package event

import (
	"fmt"
	"reflect"
	"strings"
	"time"
)

// Reference returns the page of the documentation about the data of each declared type, in Markdown.
func Reference() string {
	var out strings.Builder
	out.WriteString(referenceHead)
	for _, d := range declarations {
		fmt.Fprintf(&out, "\n## %s\n\nFor %s.\n", d.Type, readersText[d.Readers]+scopeText(d))
		if d.Data == nil {
			continue
		}
		out.WriteString("\n| field | type | |\n|---|---|---|\n")
		writeFields(&out, "", reflect.TypeOf(d.Data))
	}
	return out.String()
}

const referenceHead = `# Events and their data

What ` + "`Event.data`" + ` holds, by type: over GraphQL, REST, event streams and brokers alike. The names over GraphQL are in capitals (` + "`USER_CREATED`" + `). This page is
written from the code; ` + "`go test ./graph -run golden -update`" + ` writes it again.

**How data change.** The data of a type only gain fields. No field is renamed or removed, or gets another type or meaning: what would need that is recorded as a new type of
events, and the old one is recorded beside it for a release at least. So read the fields that you know, ignore others, and ignore types that you do not know. A field that is
marked optional is left out when it has no value; older events lack fields that were added since. A list or an object without entries may be null. Events about a person hold ` + "`{\"redacted\": true}`" + ` alone after the
account was deleted. The data are the subject as it was after the change, never a secret.
`

var readersText = map[Readers]string{
	ReadersAdmin:    "ADMIN",
	ReadersOwner:    "the user whom it concerns, and ADMIN",
	ReadersStaff:    "the user whom it concerns, STAFF and ADMIN",
	ReadersServices: "SERVICE, STAFF and ADMIN",
	ReadersPublic:   "every signed-in caller while `active` is true; STAFF and ADMIN always",
}

func scopeText(d Declaration) string {
	if d.Scope == "" {
		return ""
	}
	return fmt.Sprintf("; API keys need `%s`", d.Scope)
}

// writeFields writes a row for each field of the struct, and for those of structs in it.
func writeFields(out *strings.Builder, prefix string, t reflect.Type) {
	for f := range t.Fields() {
		name, options, _ := strings.Cut(f.Tag.Get("json"), ",")
		text, inner, suffix := jsonType(f.Type)
		if options == "omitempty" {
			text += ", optional"
		}
		fmt.Fprintf(out, "| `%s%s` | %s | %s |\n", prefix, name, text, f.Tag.Get("doc"))
		if inner != nil {
			writeFields(out, prefix+name+suffix+".", inner)
		}
	}
}

// jsonType returns how JSON shows a Go type, and the struct in it, if any, with what leads to it.
func jsonType(t reflect.Type) (text string, inner reflect.Type, suffix string) {
	switch {
	case t == reflect.TypeFor[time.Time]():
		return "time (RFC 3339)", nil, ""
	case t == reflect.TypeFor[time.Duration]():
		return "whole number of nanoseconds", nil, ""
	}
	switch t.Kind() {
	case reflect.Pointer:
		text, inner, suffix = jsonType(t.Elem())
		return text + " or null", inner, suffix
	case reflect.Slice:
		text, inner, suffix = jsonType(t.Elem())
		return "list of " + text, inner, "[]" + suffix
	case reflect.Map:
		return "object of text by name", nil, ""
	case reflect.Struct:
		return "object", t, ""
	case reflect.Bool:
		return "true or false", nil, ""
	case reflect.Int, reflect.Int64:
		return "whole number", nil, ""
	default:
		return "text", nil, ""
	}
}
