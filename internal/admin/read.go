package admin

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// Bounds of reading metrics.
const (
	readTime        = time.Second
	maxMetricsBytes = 4 << 20
)

// ReadMetrics returns the metrics that the admin listener at the address (host:port) of a running node shows, by
// name with labels.
func ReadMetrics(ctx context.Context, address string) (map[string]float64, error) {
	ctx, cancel := context.WithTimeout(ctx, readTime)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+address+"/metrics", nil)
	if err != nil {
		return nil, err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, fmt.Errorf("GET /metrics: %s", resp.Status)
	}
	all := map[string]float64{}
	lines := bufio.NewScanner(io.LimitReader(resp.Body, maxMetricsBytes))
	for lines.Scan() {
		name, text, found := strings.Cut(lines.Text(), " ")
		if value, err := strconv.ParseFloat(text, 64); found && err == nil {
			all[name] = value
		}
	}
	return all, lines.Err()
}
