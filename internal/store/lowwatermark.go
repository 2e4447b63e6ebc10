package store

import (
	"context"
	"slices"
	"strings"
	"time"
)

// lowWatermark finds an identity below which no event can get committed any more, so that the scan for events without
// a position can begin there. It is exact, however late a transaction commits:
//
//  1. Read the last identity that was handed out, the candidate.
//  2. Then list the transactions that have a lock for changes of the table. One that got an identity up to the
//     candidate took that lock before and keeps it to its end, so it has ended or is in the list.
//  3. Once none of those in the list has the lock any more, a statement that begins later sees every event up
//     to the candidate that will ever be there.
//  4. When such a statement has assigned positions to all that it saw, the watermark is behind the candidate.
//
// Transaction ids would not do: a transaction may get one after its identity. What was found on one server says
// nothing on another, whose sequence may be behind; servers are told apart by the time of their start. It is not safe for concurrent use.
type lowWatermark struct {
	server    string // of what follows
	candidate int64  // 0 for none
	writers   []string
	clear     bool // no transaction of writers has the lock any more
	low       int64
	assigned  bool // positions were assigned since the last candidate
	lookedAt  time.Time
}

// watermarkInterval is the least time between two looks at the locks.
const watermarkInterval = time.Second

// advance does the steps 1 to 3 as far as possible.
func (w *lowWatermark) advance(ctx context.Context, s *Sequence) error {
	if w.clear || !w.assigned && w.candidate == 0 || time.Since(w.lookedAt) < watermarkInterval {
		return nil
	}
	w.lookedAt = time.Now()
	fresh := w.candidate == 0
	if fresh {
		server, candidate, err := s.lastIdentity(ctx)
		if err != nil || candidate == 0 {
			return err
		}
		if server != w.server {
			*w = lowWatermark{server: server, lookedAt: w.lookedAt}
		}
		w.candidate, w.assigned = candidate, false
	}
	server, writers, err := s.writers(ctx)
	if err != nil || server != w.server {
		*w = lowWatermark{server: w.server, low: w.low, assigned: true, lookedAt: w.lookedAt} // again, from step 1
		return err
	}
	if fresh {
		w.writers = writers
	}
	w.writers = slices.DeleteFunc(w.writers, func(id string) bool { return !slices.Contains(writers, id) })
	w.clear = len(w.writers) == 0
	return nil
}

// noteAssigned does step 4: n positions were assigned, of limit at most, by a statement that began after
// advance.
func (w *lowWatermark) noteAssigned(n, limit int) {
	w.assigned = w.assigned || n > 0
	if w.clear && n < limit {
		w.low, w.candidate, w.clear = w.candidate+1, 0, false
	}
}

// startOfServer tells servers apart.
const startOfServer = `CAST(pg_postmaster_start_time() AS text)`

// lastIdentity returns the last seq that was handed out, and by which server; 0 for none, or if sessions take several at a
// time and so may use an earlier one later.
func (s *Sequence) lastIdentity(ctx context.Context) (server string, seq int64, err error) {
	_, err = s.conn().queryRow(ctx, `SELECT `+startOfServer+`, CASE WHEN s.is_called AND q.seqcache = 1 THEN s.last_value ELSE 0 END
		FROM events_seq_seq AS s, pg_sequence AS q WHERE q.seqrelid = 'events_seq_seq'::regclass`, nil, &server, &seq)
	return server, seq, err
}

// writers returns the transactions that may have inserted events and not ended, and of which server they are.
func (s *Sequence) writers(ctx context.Context) (server string, all []string, err error) {
	var list string
	_, err = s.conn().queryRow(ctx, `SELECT `+startOfServer+`, COALESCE(string_agg(DISTINCT virtualtransaction, ' '), '') FROM pg_locks
		WHERE locktype = 'relation' AND relation = 'events'::regclass AND mode = 'RowExclusiveLock'
			AND database = (SELECT oid FROM pg_database WHERE datname = current_database())`, nil, &server, &list)
	return server, strings.Fields(list), err
}
