package executor

import (
	"context"
	"encoding/json"
	"reflect"
	"sync"
	"sync/atomic"

	"github.com/99designs/gqlgen/graphql"

	"github.com/backplane-dev/backplane/internal/fault"
	"github.com/backplane-dev/backplane/internal/membudget"
)

// What an operation keeps alive in memory, in bytes. The factors of texts cover the rows, and the
// buffers that a response is written to and encoded in, which grow by doubling; once it is
// made, only the latter remain.
const (
	operationBytes = 16 << 10 // fixed part
	fieldBytes     = 2 << 10  // rows, objects and marshalers behind a field
	textFactor     = 6
	responseFactor = 3
)

// Bytes of text that a response may have before it takes memory for more, and that it takes at
// a time: as much as it has, within bounds.
const (
	freeText  = 4 << 10
	minGrowth = 16 << 10
	maxGrowth = 256 << 10
)

// MemoryEstimate returns the bytes that the operation is expected to need, by its cost.
func (o *Operation) MemoryEstimate() int64 { return operationBytes + fieldBytes*int64(o.cost) }

// RetainedBytes returns the bytes that the operation keeps alive until it ends: its document,
// as if no other operation had the same, and its variables.
func (o *Operation) RetainedBytes() int64 { return o.document.bytes + valueBytes(o.variables) }

// valueBytes estimates the memory of a coerced value.
func valueBytes(v any) int64 {
	const word = 16
	switch v := v.(type) {
	case string:
		return word + int64(len(v))
	case json.Number:
		return word + int64(len(v))
	case []any:
		n := int64(2 * word)
		for _, item := range v {
			n += word + valueBytes(item)
		}
		return n
	case map[string]any:
		n := int64(4 * word)
		for name, item := range v {
			n += 4*word + int64(len(name)) + valueBytes(item)
		}
		return n
	}
	return word
}

// responseMeter counts the bytes of a response while its fields are resolved, so that one
// that is too large, or too much for the memory budget, ends before it is in memory.
type responseMeter struct {
	limit int64
	grant *membudget.Grant
	bytes atomic.Int64 // of the response, a lower bound
	ended atomic.Pointer[fault.Error]

	growing sync.Mutex
	paid    atomic.Int64 // bytes of text that the grant covers beyond freeText
}

type meterKey struct{}

func withMeter(ctx context.Context, m *responseMeter) context.Context {
	return context.WithValue(ctx, meterKey{}, m)
}

// errTooLarge is the error of a response above the limit of bytes.
func errTooLarge(limit int64) *fault.Error {
	return fault.New(fault.ResponseTooLarge, "The response is larger than %d bytes: ask for fewer fields or shorter lists.", limit)
}

// meterFields returns the field middleware with the texts that fields return counted. Once the
// response is over, no further field is resolved.
func meterFields(next graphql.FieldMiddleware) graphql.FieldMiddleware {
	return func(ctx context.Context, resolve graphql.Resolver) (any, error) {
		m, _ := ctx.Value(meterKey{}).(*responseMeter)
		if m == nil {
			return next(ctx, resolve)
		}
		if ended := m.ended.Load(); ended != nil {
			return nil, ended
		}
		v, err := next(ctx, resolve)
		if ended := m.count(ctx, textBytes(v)); ended != nil {
			return nil, ended
		}
		return v, err
	}
}

// count adds the bytes of a text; it returns why the response ends, nil if it goes on.
func (m *responseMeter) count(ctx context.Context, n int64) *fault.Error {
	if n == 0 {
		return nil
	}
	total := m.bytes.Add(n)
	switch {
	case total > m.limit:
		return m.end(errTooLarge(m.limit))
	case total > freeText+m.paid.Load():
		if err := m.grow(ctx, total); err != nil {
			return m.end(fault.From(err))
		}
	}
	return nil
}

// grow takes memory for more text. It waits for it as Grant.Take does.
func (m *responseMeter) grow(ctx context.Context, total int64) error {
	m.growing.Lock()
	defer m.growing.Unlock()
	for total > freeText+m.paid.Load() {
		step := min(max(m.paid.Load(), minGrowth), maxGrowth)
		if err := m.grant.Take(ctx, textFactor*step); err != nil {
			return err
		}
		m.paid.Add(step)
	}
	return nil
}

func (m *responseMeter) end(f *fault.Error) *fault.Error {
	m.ended.CompareAndSwap(nil, f)
	return m.ended.Load()
}

// textBytes returns the length of a field's value if it is text, else zero: the cost of the
// operation covers all other values.
func textBytes(v any) int64 {
	switch v := v.(type) {
	case nil:
		return 0
	case string:
		return int64(len(v))
	case *string:
		if v == nil {
			return 0
		}
		return int64(len(*v))
	case bool, *bool, int, *int, int64, float64:
		return 0
	}
	return reflectedTextBytes(reflect.ValueOf(v))
}

// reflectedTextBytes is textBytes for named types of text and lists of them.
func reflectedTextBytes(v reflect.Value) (n int64) {
	switch v.Kind() {
	case reflect.String:
		return int64(v.Len())
	case reflect.Slice:
		switch v.Type().Elem().Kind() {
		case reflect.Uint8:
			return int64(v.Len())
		case reflect.String:
			for i := range v.Len() {
				n += int64(v.Index(i).Len())
			}
		default: // objects, whose fields are counted by themselves
		}
	default: // neither text nor a list
	}
	return n
}
