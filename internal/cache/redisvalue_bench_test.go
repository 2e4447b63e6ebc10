package cache

import (
	"testing"
	"time"

	"github.com/backplane-dev/backplane/internal/secrets"
)

// BenchmarkValue is what a node computes for one value of Redis.
func BenchmarkValue(b *testing.B) {
	const id = "prd_01jn8jnhp0e008000000000000"
	data := []byte(`{"ID":"` + id + `","Version":1,"CreatedAt":"2026-03-01T12:00:00.123456Z","UpdatedAt":"2026-03-01T12:00:00.123456Z",` +
		`"SKU":"sku1","Name":"sku1","Description":"","Price":{"Minor":250,"Currency":"EUR"},"Active":true,"LegacyID":null}`)
	key, now := generation{"0123456789abcdef", "0123456789abc"}.rowKey(products.name, id), time.Now()
	f := newValueFormat([secrets.Size]byte{1}, time.Minute)
	text := f.write(key, 1, data, now)
	b.Run("parse", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if f.parse(key, text, now).data == nil {
				b.Fatal("the MAC is wrong")
			}
		}
	})
	b.Run("parse and decode", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			if _, err := products.decode(id, f.parse(key, text, now).data); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("write", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			f.write(key, 1, data, now)
		}
	})
}
