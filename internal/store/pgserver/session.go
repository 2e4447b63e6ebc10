package pgserver

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/backplane-dev/backplane/internal/monotime"
)

// isReadOnly is true on a server that cannot write.
const isReadOnly = `(pg_is_in_recovery() OR current_setting('transaction_read_only') = 'on')`

// durability is the value of synchronous_commit that a session gets unless the URL sets one: what is
// acknowledged must survive a crash of the server. Values that wait for more are kept.
const durability = `CASE current_setting('synchronous_commit') WHEN 'off' THEN 'on' ELSE current_setting('synchronous_commit') END`

// sessionQuery returns the statement that reads what a connection leads to and sets the settings of its
// session: one round trip. The name of a server is the time of its start.
func sessionQuery(settings map[string]string) (query string, args [][]byte) {
	var b strings.Builder
	b.WriteString(`SELECT ` + isReadOnly + `, CAST(EXTRACT(EPOCH FROM pg_postmaster_start_time()) * 1000000 AS bigint), pg_backend_pid(), current_setting('server_encoding')`)
	for _, name := range slices.Sorted(maps.Keys(settings)) {
		args = append(args, []byte(name), []byte(settings[name]))
		fmt.Fprintf(&b, `, set_config($%d, $%d, false)`, len(args)-1, len(args))
	}
	if _, set := settings["synchronous_commit"]; !set {
		b.WriteString(`, set_config('synchronous_commit', ` + durability + `, false)`)
	}
	return b.String(), args
}

// prepareSession refuses a connection whose server cannot write or stores no UTF-8, and makes the
// session ready for use.
func (s *Server) prepareSession(ctx context.Context, pc *pgconn.PgConn, settings map[string]string) error {
	query, args := sessionQuery(settings)
	res := pc.ExecParams(ctx, query, args, nil, nil, nil).Read()
	if res.Err != nil {
		return fmt.Errorf("set up the session: %w", res.Err)
	}
	row := res.Rows[0]
	if string(row[0]) == "t" {
		s.suspect.Store(monotime.Now())
		return ErrCannotWrite
	}
	if encoding := string(row[3]); encoding != "UTF8" {
		return &RefusedError{fmt.Sprintf("the database has the encoding %s: create it with ENCODING 'UTF8', for texts of all languages", encoding)}
	}
	if string(row[2]) != strconv.FormatUint(uint64(pc.PID()), 10) {
		s.pooled.Store(true) // a pooler answers for the server, under a number of its own
	}
	return s.admit(connOf(pc.Conn()), string(row[1]))
}
