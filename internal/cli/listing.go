package cli

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"
	"unicode"

	"github.com/spf13/cobra"

	"github.com/backplane-dev/backplane/internal/page"
)

const jsonMeaning = "write JSON, for programs: one object a line"

// addJSONFlag adds --json to a command that lists, and to its commands.
func (c *commandLine) addJSONFlag(cmd *cobra.Command) *cobra.Command {
	cmd.PersistentFlags().BoolVar(&c.json, "json", false, jsonMeaning)
	return cmd
}

// listing writes rows as a table, or as one JSON object a line.
type listing struct {
	out     io.Writer
	columns []string
	table   *tabwriter.Writer // nil for JSON
}

// newListing returns a listing whose columns have the names, such as "last seen": lastSeen in JSON.
func (c *commandLine) newListing(out io.Writer, columns ...string) *listing {
	l := &listing{out: out, columns: columns}
	if !c.json {
		l.table = tabwriter.NewWriter(out, 0, 0, 3, ' ', 0)
		fmt.Fprintln(l.table, strings.Join(columns, "\t"))
	}
	return l
}

// absent is a value that is not there: null in JSON, and this text in a table.
type absent string

// add writes a row: a value for each column.
func (l *listing) add(values ...any) error {
	if l.table == nil {
		return writeJSONLine(l.out, l.columns, values)
	}
	texts := make([]string, len(values))
	for i, v := range values {
		texts[i] = cellText(v)
	}
	_, err := fmt.Fprintln(l.table, strings.Join(texts, "\t"))
	return err
}

// flush writes out the table.
func (l *listing) flush() error {
	if l.table == nil {
		return nil
	}
	return l.table.Flush()
}

// eachItem calls do with the items of all pages of a list.
func eachItem[T any](list func(page.Args) (page.Page[T], error), do func(T) error) error {
	first := page.MaxSize
	for args := (page.Args{First: &first}); ; {
		p, err := list(args)
		if err != nil {
			return err
		}
		for _, item := range p.Items {
			if err := do(item); err != nil {
				return err
			}
		}
		if !p.HasNext {
			return nil
		}
		args.After = &p.Cursors[len(p.Cursors)-1]
	}
}

func cellText(v any) string {
	switch v := v.(type) {
	case time.Time:
		return v.Format(time.RFC3339)
	case []string:
		return strings.Join(v, ",")
	default:
		return fmt.Sprint(v)
	}
}

// writeJSONLine writes an object of the values under their names, in this order.
func writeJSONLine(out io.Writer, names []string, values []any) error {
	var line bytes.Buffer
	separator := "{"
	for i, name := range names {
		v := values[i]
		switch typed := v.(type) {
		case absent:
			v = nil
		case []string:
			v = append([]string{}, typed...) // never null
		}
		value, err := marshalPlain(v)
		if err != nil {
			return fmt.Errorf("write %s as JSON: %w", name, err)
		}
		fmt.Fprintf(&line, "%s%q:%s", separator, jsonName(name), value)
		separator = ","
	}
	line.WriteString("}\n")
	_, err := out.Write(line.Bytes())
	return err
}

// marshalPlain returns the value as JSON that no browser will read.
func marshalPlain(v any) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	err := e.Encode(v)
	return bytes.TrimSpace(b.Bytes()), err
}

// jsonName returns the name of a column in JSON: "last seen" is lastSeen.
func jsonName(column string) string {
	var b strings.Builder
	upper := false
	for _, r := range column {
		switch {
		case r == ' ':
			upper = true
		case upper:
			b.WriteRune(unicode.ToUpper(r))
			upper = false
		default:
			b.WriteRune(r)
		}
	}
	return b.String()
}
