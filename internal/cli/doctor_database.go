package cli

import (
	"context"
	"time"

	"github.com/backplane-dev/backplane/internal/app"
)

// numberingLimit is how long events may wait for a position: far longer than a takeover of the sequencer
// takes.
const numberingLimit = 10 * time.Second

// checkDatabase finds a database that cannot store changes, events without a position, and nodes that may open
// more connections than the server allows.
func checkDatabase(ctx context.Context, env app.Env, tools *app.Toolbox) (findings []finding, err error) {
	if err := tools.DB.CheckWritable(ctx); err != nil {
		findings = append(findings, problem("The database cannot store changes: %v. Make room, or make the server writable; nodes are not ready until then.", err)...)
	}
	newer, err := tools.DB.NewerMigration(ctx)
	if err != nil {
		return nil, err
	}
	if newer != "" {
		findings = append(findings, warning("The database has the migration %s of a newer release, with which this release can serve on. Upgrade this machine, too.", newer)...)
	}
	state, err := tools.Log.State(ctx)
	if err != nil {
		return nil, err
	}
	if state.Behind > numberingLimit {
		findings = append(findings, problem("Events have been waiting for a position since %v: no server runs, or none can work as the sequencer. "+
			"See the logs of the servers for \"sequencer cannot assign positions\".", state.Behind.Round(time.Second))...)
	}
	c, err := tools.DB.Capacity(ctx, env.Config.RedisURL == "")
	if err != nil {
		return nil, err
	}
	if c.IsExceeded() {
		findings = append(findings, problem("A node may open %d connections to PostgreSQL, and %d nodes run, but %d connections are allowed in all. "+
			"Raise max_connections (or the limit of the user or database), or lower BACKPLANE_DATABASE_CONNECTIONS.", c.PerNode, c.Nodes, c.Allowed)...)
	}
	return findings, nil
}
