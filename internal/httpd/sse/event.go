package sse

import (
	"bytes"
	"context"
	"encoding/json"
	"strings"

	"github.com/99designs/gqlgen/graphql"
	"github.com/vektah/gqlparser/v2/gqlerror"

	"github.com/backplane-dev/backplane/internal/httpd/connection"
	"github.com/backplane-dev/backplane/internal/httpd/jsoncodec"
	"github.com/backplane-dev/backplane/internal/httpd/outbound"
)

// WriteErrors implements connection.ResultWriter.
func (st *stream) WriteErrors(o *connection.Operation, errs gqlerror.List) {
	if st.encodeEvent != nil {
		name, data := st.encodeEvent(&graphql.Response{Errors: errs})
		st.writeEvent(context.Background(), name, json.RawMessage(data))
		return
	}
	st.writeEvent(context.Background(), "next", map[string]any{"errors": errs})
	st.WriteComplete(o)
}

// WriteComplete implements connection.ResultWriter.
func (st *stream) WriteComplete(*connection.Operation) {
	if st.encodeEvent == nil {
		st.writeEvent(context.Background(), "complete", nil)
	}
}

// writeEvent writes one event, unless ctx ends before the writes ahead of it have. An event
// without data has an empty line of it, without which browsers drop the event.
func (st *stream) writeEvent(ctx context.Context, name string, data any) {
	text, out := outbound.GetBuffer(), outbound.GetBuffer()
	defer outbound.PutBuffer(text)
	defer outbound.PutBuffer(out)
	if data != nil {
		if err := jsoncodec.Encode(text, data); err != nil {
			st.s.connections.CloseOnEncodeError(st.ctx, st, err)
			return
		}
	}
	outbound.JoinLines(text.Bytes())
	appendEvent(out, name, "", text.Bytes())
	if st.writing.Acquire(ctx, 1) != nil {
		return
	}
	defer st.unlock()
	if ctx.Err() == nil {
		st.send(out.Bytes())
	}
}

// appendEvent appends an event with one line of data.
func appendEvent(out *bytes.Buffer, name, id string, line []byte) {
	if name != "" {
		out.WriteString("event: " + name + "\n")
	}
	if isEventID(id) {
		out.WriteString("id: " + id + "\n")
	}
	out.WriteString("data: ")
	out.Write(line)
	out.WriteString("\n\n")
}

// isEventID reports whether a cursor can be the id of an event.
func isEventID(id string) bool { return id != "" && !strings.ContainsAny(id, "\r\n\x00") }
