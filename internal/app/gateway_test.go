package app

import (
	"slices"
	"testing"

	"github.com/backplane-dev/backplane/internal/config"
)

func TestDeniedAddresses_reads_URLs_as_their_clients_do(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		database, redis string
		want            []string
	}{
		{"postgres://u:p@10.0.0.5?sslmode=disable", "redis://10.0.0.6?db=1", []string{"10.0.0.5:5432", "10.0.0.6:6379"}},
		{"postgres://u:p@10.0.0.5:5433,10.0.0.7/shop?sslmode=disable", "rediss://u:p@10.0.0.6:7000/2", []string{"10.0.0.5:5433", "10.0.0.7:5432", "10.0.0.6:7000"}},
		{"postgres:///shop?host=10.0.0.5&sslmode=disable", "", []string{"10.0.0.5:5432"}},
		{"postgres:///shop?host=/run/postgresql&sslmode=disable", "", nil},
		{"sqlite:data/backplane.db", "redis://[fd00::6]:6379", []string{"[fd00::6]:6379"}},
	} {
		got, err := deniedAddresses(config.Config{Database: config.Database(tt.database), RedisURL: config.Secret(tt.redis), AdminListen: config.Off})
		if err != nil || !slices.Equal(got, tt.want) {
			t.Errorf("with %s and %s the denied addresses are %v, %v; want %v", tt.database, tt.redis, got, err, tt.want)
		}
	}
}
