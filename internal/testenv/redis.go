package testenv

import (
	"context"
	"fmt"
	"net/url"
	"strconv"
	"testing"

	"github.com/redis/go-redis/v9"

	"github.com/backplane-dev/backplane/internal/testenv/local"
)

var redisServer = server(local.RedisURL, local.Redis)

// Redis returns the URL of an empty database on a real Redis. Tests get one
// database each, in turn, as long as the server has more of them than run at
// once; channels are the same for all databases, so tests of them need names of
// their own.
func Redis(t testing.TB) string {
	t.Helper()
	admin, err := redisServer()
	if err != nil {
		LeaveOut(t, "Redis", err)
	}
	opts, err := redis.ParseURL(admin)
	if err != nil {
		t.Fatalf("%s must be a URL like redis://host:port: %v", local.RedisURL, err)
	}
	if opts.DB, err = nextDatabase(t.Context(), opts); err != nil {
		t.Fatalf("find a free Redis database: %v", err)
	}
	client := redis.NewClient(opts)
	if err := client.FlushDB(t.Context()).Err(); err != nil {
		t.Fatalf("empty Redis database %d: %v", opts.DB, err)
	}
	t.Cleanup(func() {
		client.FlushDB(context.Background())
		client.Close()
	})
	u, _ := url.Parse(admin) // ParseURL has read it
	u.Path = "/" + strconv.Itoa(opts.DB)
	return u.String()
}

// nextDatabase counts in database 0, which no test gets.
func nextDatabase(ctx context.Context, opts *redis.Options) (int, error) {
	client := redis.NewClient(opts)
	defer client.Close()
	turn, err := client.Incr(ctx, "backplane:testenv:turn").Result()
	if err != nil {
		return 0, err
	}
	setting, err := client.ConfigGet(ctx, "databases").Result()
	if err != nil {
		return 0, err
	}
	databases, err := strconv.ParseInt(setting["databases"], 10, 32)
	if err != nil || databases < 2 {
		return 0, fmt.Errorf("the server has %q databases, at least 2 are needed", setting["databases"])
	}
	return int(1 + turn%(databases-1)), nil
}
