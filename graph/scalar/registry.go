package scalar

import (
	"encoding/json"
	"io"
	"strconv"
	"time"

	"github.com/99designs/gqlgen/graphql"
)

// MarshalDuration writes a Duration.
func MarshalDuration(d time.Duration) graphql.Marshaler { return graphql.MarshalString(d.String()) }

// UnmarshalDuration reads a Duration: Go's notation, not negative.
func UnmarshalDuration(v any) (time.Duration, error) {
	s, _ := v.(string)
	d, err := time.ParseDuration(s)
	if err != nil || d < 0 || len(s) > 40 {
		return 0, badInput(`a length of time in a string, e.g. "1.5s"`)
	}
	return d, nil
}

// MarshalStringMap writes a StringMap.
func MarshalStringMap(m map[string]string) graphql.Marshaler {
	return graphql.WriterFunc(func(w io.Writer) {
		b, _ := json.Marshal(m) // strings always encode
		_, _ = w.Write(b)
	})
}

// maxMapEntries bounds a StringMap before its entries are read.
const maxMapEntries = 1000

// UnmarshalStringMap reads a StringMap: an object whose values are strings.
func UnmarshalStringMap(v any) (map[string]string, error) {
	object, ok := v.(map[string]any)
	if !ok || len(object) > maxMapEntries {
		return nil, badInput("an object whose values are strings")
	}
	m := make(map[string]string, len(object))
	for k, v := range object {
		key, err := UnmarshalString(k)
		if err != nil {
			return nil, err
		}
		if _, ok := v.(string); !ok {
			return nil, badInput("an object whose values are strings")
		}
		if m[key], err = UnmarshalString(v); err != nil {
			return nil, err
		}
	}
	return m, nil
}

// maxLong is the largest number of a Long, and without its sign the smallest: those that every
// JSON reader takes as they are.
const maxLong = 1<<53 - 1

// MarshalLong writes a Long, a number beyond its range as the nearest in it.
func MarshalLong(n int64) graphql.Marshaler {
	n = max(-maxLong, min(n, maxLong))
	return graphql.WriterFunc(func(w io.Writer) { _, _ = io.WriteString(w, strconv.FormatInt(n, 10)) })
}

// UnmarshalLong reads a Long: a whole number that every JSON reader takes as it is.
func UnmarshalLong(v any) (int64, error) {
	n, err := UnmarshalInt64(v)
	if err != nil || n > maxLong || n < -maxLong {
		return 0, badInput("a whole number of at most 2^53-1")
	}
	return n, nil
}
