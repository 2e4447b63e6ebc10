package cache_test

import (
	"context"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/redis/go-redis/v9"

	"github.com/backplane-dev/backplane/internal/testenv"
	"github.com/backplane-dev/backplane/internal/uid"
)

func benchNode(b *testing.B, products int) (*node, []uid.Product) {
	b.Helper()
	n := start(b, options{redis: testenv.Redis(b)})
	var ids []uid.Product
	for i := range products {
		ids = append(ids, n.product(b, fmt.Sprint("sku", i), 1).ID)
	}
	n.caughtUp(b, n)
	if _, err := n.products.ByIDs(b.Context(), ids); err != nil {
		b.Fatal(err)
	}
	testenv.Eventually(b, "Redis has the fills", func() bool { return n.fills() >= uint64(products) })
	return n, ids
}

func BenchmarkRead(b *testing.B) {
	n, ids := benchNode(b, 100)
	for _, size := range []int{1, 100} {
		for _, level := range []struct {
			name   string
			forget func()
		}{
			{"hit", func() {}},
			{"Redis hit", func() { n.cache.Clear() }},
			{"miss", func() { n.cache.Clear(); n.cache.RedisClient().FlushDB(b.Context()) }},
		} {
			b.Run(fmt.Sprintf("%s of %d", level.name, size), func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					if level.name != "hit" {
						b.StopTimer()
						level.forget()
						testenv.Eventually(b, "Redis is ready", func() bool { return n.cache.Stats().Redis.Ready })
						b.StartTimer()
					}
					if found, err := n.products.ByIDs(b.Context(), ids[:size]); err != nil || len(found) != size {
						b.Fatal(len(found), err)
					}
				}
			})
		}
	}
}

// BenchmarkRedis compares ways to read values of Redis: the script of the cache, MGET,
// pipelined GETs, and GETs with the library's client-side caching.
func BenchmarkRedis(b *testing.B) {
	n, ids := benchNode(b, 100)
	ctx := b.Context()
	var keys []string
	for _, id := range ids {
		keys = append(keys, n.cache.RedisKey("product", string(id)))
	}
	plain := n.cache.RedisClient()
	opts, err := redis.ParseURL(n.redis)
	if err != nil {
		b.Fatal(err)
	}
	opts.Protocol, opts.ClientSideCacheConfig = 3, &redis.ClientSideCacheConfig{}
	tracking := redis.NewClient(opts)
	defer tracking.Close()
	for _, size := range []int{1, 100} {
		some := keys[:size]
		for _, way := range []struct {
			name string
			read func() error
		}{
			{"script", func() error { return n.cache.ReadRedis(ctx, ids[:size]) }},
			{"MGET", func() error { return plain.MGet(ctx, some...).Err() }},
			{"pipeline", func() error { return pipelineGets(ctx, plain.Pipeline(), some) }},
			{"client-side", func() error {
				for _, k := range some {
					if err := tracking.Get(ctx, k).Err(); err != nil {
						return err
					}
				}
				return nil
			}},
		} {
			b.Run(fmt.Sprintf("%s of %d", way.name, size), func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					if err := way.read(); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
	auto, err := plain.AutoPipeline()
	if err != nil {
		b.Fatal(err)
	}
	defer auto.Close()
	for name, by := range map[string]redis.Scripter{"one by one": plain, "by automatic pipeline": auto} {
		for goroutines, size := range map[int]int{1: 1, 64: 1, 65: 100} {
			b.Run(fmt.Sprintf("script of %d %s from %d goroutines", size, name, goroutines), func(b *testing.B) {
				b.SetParallelism((goroutines + 1) / 2)
				b.RunParallel(func(pb *testing.PB) {
					for pb.Next() {
						if err := n.cache.ReadRedisBy(ctx, by, ids[:size]); err != nil {
							b.Error(err)
						}
					}
				})
			})
		}
	}
}

func pipelineGets(ctx context.Context, p redis.Pipeliner, keys []string) error {
	for _, k := range keys {
		p.Get(ctx, k)
	}
	_, err := p.Exec(ctx)
	return err
}

// BenchmarkMiss_during_large_batches reports the times of single misses while batches of
// 2,000 keys are read.
func BenchmarkMiss_during_large_batches(b *testing.B) {
	n, ids := benchNode(b, 2000)
	ctx, cancel := context.WithCancel(b.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		for ctx.Err() == nil {
			n.cache.Clear()
			_, _ = n.db.Products().ByIDs(ctx, ids)
			_, _ = n.products.ByIDs(ctx, ids)
		}
	}()
	var took []time.Duration
	for i := 0; b.Loop(); i++ {
		n.cached.Expire(ids[i%len(ids)])
		begun := time.Now()
		if _, err := n.products.ByIDs(b.Context(), ids[i%len(ids):][:1]); err != nil {
			b.Fatal(err)
		}
		took = append(took, time.Since(begun))
	}
	cancel()
	<-done
	slices.Sort(took)
	b.ReportMetric(float64(took[len(took)*99/100].Microseconds()), "p99-µs")
}
