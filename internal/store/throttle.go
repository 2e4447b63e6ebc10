package store

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/backplane-dev/backplane/internal/claim"
	"github.com/backplane-dev/backplane/internal/session/throttle"
)

// errLimitPassed rolls back a transaction in which a counter passed its limit.
var errLimitPassed = errors.New("a counter is full")

// Take implements throttle.Store. One statement increments all counters and
// returns their states; if one passed its limit the transaction is rolled back.
func (s Sessions) Take(ctx context.Context, counters []throttle.Counter, at time.Time) (full string, wait time.Duration, err error) {
	if len(counters) == 0 {
		return "", 0, nil
	}
	sorted := slices.SortedFunc(slices.Values(counters), func(a, b throttle.Counter) int { return strings.Compare(a.Name, b.Name) })
	at = toMicros(at)
	err = s.db.inTx(ctx, claim.None, func(t *tx) error {
		t.dirty = true
		stands, err := t.countAttempts(ctx, sorted, at)
		if err != nil {
			return err
		}
		for _, c := range counters {
			if now := stands[c.Name]; now.tries > c.Limit {
				full, wait = c.Name, now.ends.Sub(at)
				return errLimitPassed
			}
		}
		full, wait = "", 0
		return nil
	})
	if errors.Is(err, errLimitPassed) {
		return full, max(wait, time.Microsecond), nil
	}
	if err != nil {
		return "", 0, fmt.Errorf("count tries: %w", err)
	}
	return "", 0, nil
}

// counterState is the state of a counter, this attempt included.
type counterState struct {
	tries int
	ends  time.Time
}

func (t *tx) countAttempts(ctx context.Context, sorted []throttle.Counter, at time.Time) (map[string]counterState, error) {
	var args []any
	for _, c := range sorted {
		args = append(args, c.Name, at.Add(c.Window))
	}
	args = append(args, at, at)
	void := `throttles.ends_at > ` + t.db.addMillis(sqlTime{sql: "excluded.ends_at"}, tolerance) // a window that begins in the future
	stands := make(map[string]counterState, len(sorted))
	err := t.eachRow(ctx, `INSERT INTO throttles (name, tries, ends_at) VALUES `+strings.TrimSuffix(strings.Repeat("(?, 1, ?), ", len(sorted)), ", ")+`
		ON CONFLICT (name) DO UPDATE SET
			tries = CASE WHEN throttles.ends_at <= ? OR `+void+` THEN 1 ELSE throttles.tries + 1 END,
			ends_at = CASE WHEN throttles.ends_at <= ? OR `+void+` THEN excluded.ends_at ELSE throttles.ends_at END
		RETURNING name, tries, ends_at`, args, func(scan func(...any) error) error {
		var name string
		var s counterState
		var ends instant
		err := scan(&name, &s.tries, &ends)
		s.ends = ends.Time
		stands[name] = s
		return err
	})
	return stands, err
}

// GiveBack implements throttle.Store.
func (s Sessions) GiveBack(ctx context.Context, reset, less []string) error {
	names := slices.Concat(reset, less)
	if len(names) == 0 {
		return nil
	}
	slices.Sort(names)
	err := s.db.inTx(ctx, claim.None, func(t *tx) error {
		t.dirty = true
		for _, name := range slices.Compact(names) {
			statement := `UPDATE throttles SET tries = CASE WHEN tries > 0 THEN tries - 1 ELSE 0 END WHERE name = ?`
			if slices.Contains(reset, name) {
				statement = `DELETE FROM throttles WHERE name = ?`
			}
			if _, err := t.exec(ctx, statement, name); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return fmt.Errorf("give tries back: %w", err)
	}
	return nil
}
