package plan

import (
	"io"
	"sync"

	"github.com/99designs/gqlgen/graphql"
)

// textStep is the number of bytes of text that are counted at a time.
const textStep = 2 << 10

// maxPooled bounds the buffers that are kept for other executions.
const maxPooled = 1 << 20

var buffers = sync.Pool{New: func() any { return new(writer) }}

// writer appends the response of a root field.
type writer struct {
	x     *execution
	b     []byte
	text  int64 // bytes that are not counted yet
	ended bool
}

func newWriter(x *execution) *writer {
	w := buffers.Get().(*writer)
	w.x, w.b, w.text, w.ended = x, w.b[:0], 0, false
	return w
}

func (w *writer) release() {
	w.x = nil
	if cap(w.b) <= maxPooled {
		buffers.Put(w)
	}
}

// Write implements io.Writer, for gqlgen's marshalers.
func (w *writer) Write(p []byte) (int, error) {
	w.b = append(w.b, p...)
	return len(p), nil
}

// WriteString implements io.StringWriter.
func (w *writer) WriteString(s string) (int, error) {
	w.b = append(w.b, s...)
	return len(s), nil
}

// MarshalGQL implements graphql.Marshaler.
func (w *writer) MarshalGQL(to io.Writer) { _, _ = to.Write(w.b) }

func (w *writer) null() { w.b = append(w.b, "null"...) }

// flushText counts the text that was appended.
func (w *writer) flushText() {
	if w.text > 0 && !w.x.hooks.CountText(w.x.ctx, w.text) {
		w.ended = true
	}
	w.text = 0
}

// writeObject appends an object; null and false if one of its fields is null against the schema.
func (w *writer) writeObject(l *level, i int) bool {
	start, valid := len(w.b), true
	w.b = append(w.b, '{')
	for k := 0; k < len(l.fields) && !w.ended; {
		k = w.writeFields(l, i, k, &valid)
	}
	w.b = append(w.b, '}')
	if w.text > textStep {
		w.flushText()
	}
	if !valid {
		w.b = w.b[:start]
		w.null()
	}
	return valid
}

// writeFields appends the fields of an object from an index on. It returns the index to go on
// with, after a field whose accessor panicked.
func (w *writer) writeFields(l *level, i, from int, valid *bool) (next int) {
	k, start := from, len(w.b)
	defer func() {
		if r := recover(); r != nil {
			f := l.fields[k]
			ctx := w.x.fieldContext(l, i, f)
			w.x.op.Error(ctx, w.x.op.Recover(ctx, r))
			w.b = w.b[:start]
			w.null()
			*valid = *valid && !f.NonNull
			next = k + 1
		}
	}()
	obj := l.objs[i]
	for ; k < len(l.fields); k++ {
		f := l.fields[k]
		if k > 0 {
			w.b = append(w.b, ',')
		}
		w.b = append(w.b, f.key...)
		start = len(w.b)
		if f.typename != nil {
			w.b = append(w.b, f.typename...)
			continue
		}
		if f.Append != nil {
			b, ok := f.Append(w.b, obj)
			if ok {
				w.b = b
				if f.Text && b[start] == '"' {
					w.text += int64(len(b)-start) - 2
				}
				continue
			}
		}
		if !w.writeValue(l, i, f) {
			*valid = false
		}
	}
	return k
}

// writeValue appends the value of a field; null and false if it is null against the schema.
func (w *writer) writeValue(l *level, i int, f *field) bool {
	if f.Type == "" {
		return w.writeLeaf(l, i, f)
	}
	ok := false
	switch v := l.values[f.slot]; v.refs[i].kind {
	case object:
		ok = w.writeItem(v, v.refs[i].start)
	case list:
		ok = w.writeList(v, v.refs[i], f)
	case failed, null:
		w.null()
	}
	return ok || !f.NonNull
}

// writeLeaf appends a leaf that has no Append, or whose value must be reported.
func (w *writer) writeLeaf(l *level, i int, f *field) bool {
	var m graphql.Marshaler
	if f.Waits {
		m = l.leaves[f.slot][i]
	} else {
		m = f.Marshal(w.x.objectContext(l, i), w.x.ec, f.collected, l.objs[i])
	}
	m.MarshalGQL(w)
	return m != graphql.RequiredNull && (m != graphql.Null || !f.NonNull)
}

// writeList appends a list; null and false if an item is null against the schema.
func (w *writer) writeList(v *Values, r ref, f *field) bool {
	start, valid := len(w.b), true
	w.b = append(w.b, '[')
	for k := range r.n {
		if k > 0 {
			w.b = append(w.b, ',')
		}
		if !w.writeItem(v, r.start+k) && f.ItemNonNull {
			valid = false
		}
		if w.ended {
			break
		}
	}
	w.b = append(w.b, ']')
	if !valid {
		w.b = w.b[:start]
		w.null()
	}
	return valid
}

// writeItem appends an object of a field; null and false if it is null.
func (w *writer) writeItem(v *Values, item int) bool {
	at := place{v.level, item}
	if v.places != nil {
		at = v.places[item]
	}
	if v.items[item] == nil || at.level == nil {
		w.null()
		return false
	}
	return w.writeObject(at.level, at.at)
}
