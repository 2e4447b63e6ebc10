package store

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5/pgconn"
)

// logPlace is where PostgreSQL has the log. A dump that is restored, or a copy of the database, is in another place; a server that was
// promoted, after a fail-over or a recovery to a point in time, has another timeline of its own.
type logPlace struct {
	place    string // system identifier of the cluster, oid of the database, oid of the table
	timeline int64  // of the server
}

const herePlace = `(SELECT system_identifier FROM pg_control_system())::text || '/' || (SELECT oid FROM pg_database WHERE datname = current_database()) || '/' || CAST('events'::regclass AS oid),
	('x' || lpad(substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8), 16, '0'))::bit(64)::bigint`

// Epoch implements eventlog.PositionStore.
func (s *Sequence) Epoch() int64 { return s.db.server.Epoch() }

// VerifyPlace implements eventlog.PositionStore. Of a server that was promoted, a node that has just started knows nothing: it leaves the
// decision to the node that serves, if there is one.
func (s *Sequence) VerifyPlace(ctx context.Context, verified bool) (done bool, err error) {
	was, here, err := s.readPlace(ctx)
	switch failed, refused := errors.AsType[*pgconn.PgError](err); {
	case refused && failed.Code == insufficientPrivilege:
		s.db.cfg.Log.WarnContext(ctx, "a restored database cannot be noticed by itself: the user of the database may not call pg_control_system; after a restore run backplane migrate --after-restore")
		return true, nil
	case err != nil:
		return false, fmt.Errorf("look where the log is: %w", s.db.translateError(ctx, err))
	case was == here:
		return true, nil
	case was.place == "" || verified && was.place == here.place:
		return true, s.recordPlace(ctx, was, here)
	case was.place == here.place:
		owner, err := s.db.ServingNode(ctx)
		if err != nil {
			return false, err
		}
		if self := s.self.Load(); owner != "" && (self == nil || *self != owner) {
			return false, nil
		}
	}
	s.db.cfg.Log.ErrorContext(ctx, "the database was restored, moved or promoted while no node looked: another timeline begins, and cursors of before are refused",
		"was", was.place, "is", here.place, "server_timeline_was", was.timeline, "server_timeline", here.timeline)
	return true, s.db.renewTimelineAt(ctx, here, `place = ? AND server_timeline = ?`, was.place, was.timeline)
}

// insufficientPrivilege is the SQLSTATE of a function that the user may not call.
const insufficientPrivilege = "42501"

// readPlace returns where the log was when a node last looked, and where it is.
func (s *Sequence) readPlace(ctx context.Context) (was, here logPlace, err error) {
	_, err = s.db.readConn().queryRow(ctx, `SELECT t.place, t.server_timeline, `+herePlace+` FROM timelines AS t`, nil, &was.place, &was.timeline, &here.place, &here.timeline)
	return was, here, err
}

// recordPlace stores where the log is, unless another node has.
func (s *Sequence) recordPlace(ctx context.Context, was, here logPlace) error {
	_, err := s.db.writer().exec(ctx, `UPDATE timelines SET place = ?, server_timeline = ? WHERE place = ? AND server_timeline = ?`, here.place, here.timeline, was.place, was.timeline)
	if err != nil {
		return fmt.Errorf("store where the log is: %w", s.db.translateError(ctx, err))
	}
	return nil
}
