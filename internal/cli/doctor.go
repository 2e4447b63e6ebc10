package cli

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/backplane-dev/backplane/internal/admin"
	"github.com/backplane-dev/backplane/internal/app"
	"github.com/backplane-dev/backplane/internal/config"
	"github.com/backplane-dev/backplane/internal/secrets"
	"github.com/backplane-dev/backplane/internal/session"
)

func (c *commandLine) doctorCommand() *cobra.Command {
	return c.addJSONFlag(&cobra.Command{
		Use:   "doctor",
		Short: "check configuration and data, and say what to do about each finding",
		Long:  "Reads only. Exits with status 3 if it finds a problem; a warning is for what may be intended. --json writes each finding on a line, and the database first.",
		Args:  atMost(0),
		RunE:  c.withToolbox(c.diagnose),
	})
}

// diagnose runs all checks and prints their findings.
func (c *commandLine) diagnose(ctx context.Context, env app.Env, tools *app.Toolbox, _ []string) error {
	var findings []finding
	for _, check := range []func(context.Context, app.Env, *app.Toolbox) ([]finding, error){
		checkDatabase, checkClock, checkData, checkErasures, checkAPIKeys, checkConsumers, checkPayments, checkSecretKey, checkSinks, checkSettings, checkRunningNode,
	} {
		found, err := check(ctx, env, tools)
		if err != nil {
			return err
		}
		findings = append(findings, found...)
	}
	if c.json {
		return writeFindings(env, findings)
	}
	return printFindings(env.Out, findings)
}

// checkClock finds a clock of this machine that differs from the database's.
func checkClock(_ context.Context, _ app.Env, tools *app.Toolbox) ([]finding, error) {
	if err := tools.DB.Clock().CheckSkew(); err != nil {
		return problem("%v. A server on this machine removes nothing by age and does not evaluate leases of instances until then.", err), nil
	}
	return nil, nil
}

// checkRunningNode asks the node that runs with these settings on this machine what it has met. Where none
// answers there is nothing to find.
func checkRunningNode(ctx context.Context, env app.Env, _ *app.Toolbox) ([]finding, error) {
	if env.Config.AdminListen == config.Off {
		return nil, nil
	}
	metrics, err := admin.ReadMetrics(ctx, env.Config.AdminListen)
	if err == nil && metrics[app.UntrustedProxyMetric] == 1 {
		return warning("BACKPLANE_TRUSTED_PROXIES does not name a proxy that sends X-Forwarded-For to the running node, unless a client sent the header: " +
			"the clients behind it share the limits of one address. Name its address or network; the node's log has it."), nil
	}
	return nil, nil
}

func checkData(ctx context.Context, _ app.Env, tools *app.Toolbox) (findings []finding, err error) {
	audit, err := tools.DB.Audit(ctx)
	for _, f := range audit {
		findings = append(findings, problem("data: the check %q fails for %s: %s. Report this as a bug, and restore the row from a backup.", f.Check, f.Subject, f.Detail)...)
	}
	return findings, err
}

// erasureLimit is how long an erasure may be due: far longer than nodes take.
const erasureLimit = 15 * time.Minute

// checkErasures finds deleted accounts whose data is not removed.
func checkErasures(ctx context.Context, _ app.Env, tools *app.Toolbox) ([]finding, error) {
	e, err := tools.DB.Erasures(ctx, tools.DB.Clock().Now().Add(-erasureLimit))
	if e.Overdue > 0 {
		return problem("The data of %d deleted accounts, the first of %s, waits to be erased; it is not shown any more. See the logs of the servers for "+
			"\"cannot be erased\", and check that a server runs.", e.Overdue, e.Oldest.Format(time.RFC3339)), err
	}
	return nil, err
}

// maxKeysShown is how many API keys that end soon are named.
const maxKeysShown = 10

// checkAPIKeys finds API keys that end soon.
func checkAPIKeys(ctx context.Context, _ app.Env, tools *app.Toolbox) (findings []finding, err error) {
	now := tools.DB.Clock().Now()
	keys, n, err := tools.DB.Sessions().ExpiringKeys(ctx, now, now.Add(session.ExpiryNotice), maxKeysShown)
	for _, k := range keys {
		findings = append(findings, warning("The API key %s (%q) of the user %s ends at %s. If it is still in use, make another one, and revoke it.",
			k.ID, k.Name, k.UserID, k.ExpiresAt.Format(time.RFC3339))...)
	}
	if more := n - len(keys); more > 0 {
		findings = append(findings, warning("%d more API keys end within %d days.", more, int(session.ExpiryNotice.Hours()/24))...)
	}
	return findings, err
}

// stalledAfter is how old the next event and the last move of a consumer must be
// for it to count as stalled: far longer than any backoff between two attempts.
const stalledAfter = 15 * time.Minute

// checkConsumers finds consumers and sinks that are stalled or have dead letters.
func checkConsumers(ctx context.Context, _ app.Env, tools *app.Toolbox) (findings []finding, err error) {
	consumers, err := tools.ConsumerAdmin.ConsumersForOperator(ctx)
	if err != nil {
		return nil, err
	}
	for _, c := range consumers {
		if c.DeadLetters > 0 {
			findings = append(findings, problem("The consumer %s has %d dead letters. See their errors with backplane deadletters --consumer %s, "+
				"mend the cause, then replay them.", c.Name, c.DeadLetters, c.Name)...)
		}
		next, err := tools.Log.ReadAfter(ctx, c.Cursor.Position, 1)
		if err != nil {
			return nil, err
		}
		now := tools.DB.Clock().Now()
		if len(next) > 0 && now.Sub(next[0].OccurredAt) > stalledAfter && now.Sub(c.MovedAt) > stalledAfter {
			findings = append(findings, problem("The consumer %s is stalled at %s since %s: its lag is %d events, and retention keeps them. "+
				"See the log of its owner for errors, and check that a server runs.", c.Name, c.Cursor, c.MovedAt.Format(time.RFC3339), c.Lag)...)
		}
	}
	return findings, nil
}

func checkSecretKey(ctx context.Context, env app.Env, tools *app.Toolbox) ([]finding, error) {
	protection, err := app.InspectSecrets(ctx, env, tools.DB)
	switch protection {
	case secrets.Unprotected:
		return problem("Secrets are stored unencrypted, readable by anyone with access to the database. " +
			"Set BACKPLANE_SECRET_KEY to 32 random characters or more, the same on every node, and restart them."), err
	case secrets.OtherKey:
		return problem("BACKPLANE_SECRET_KEY is not the key that this database is sealed with: servers do not start with it. " +
			"Set the right key, or change it with backplane keys rotate-master."), err
	case secrets.NoDataKey, secrets.Protected:
	}
	return nil, err
}

// checkSinks finds offsets of sinks that are not configured.
func checkSinks(ctx context.Context, env app.Env, tools *app.Toolbox) (findings []finding, err error) {
	sinks, err := sinkOffsets(ctx, tools, env.Config.Sinks)
	for _, s := range sinks {
		if s.address == "" {
			findings = append(findings, problem("The unconfigured sink %s has an offset in the event log, %d, and retention keeps all events after it. "+
				"Add the sink to BACKPLANE_SINKS, or run backplane sinks forget %s if it is gone for good.", s.name, s.Position, s.name)...)
		}
	}
	return findings, err
}

// writeFindings writes the database, and what was found in it, as JSON lines; it returns an error if there are problems.
func writeFindings(env app.Env, findings []finding) error {
	if err := writeJSONLine(env.Out, []string{"database"}, []any{describeDatabase(env.Config.Database)}); err != nil {
		return err
	}
	for _, f := range findings {
		severity := "problem"
		if f.warning {
			severity = "warning"
		}
		if err := writeJSONLine(env.Out, []string{"severity", "text"}, []any{severity, f.text}); err != nil {
			return err
		}
	}
	return problemsIn(findings)
}

// problemsIn returns an error if there are problems among the findings.
func problemsIn(findings []finding) error {
	problems := 0
	for _, f := range findings {
		if !f.warning {
			problems++
		}
	}
	if problems > 0 {
		return &findingsError{problems}
	}
	return nil
}

// printFindings prints what was found, problems first; it returns an error if there are problems.
func printFindings(out io.Writer, findings []finding) error {
	var warnings []string
	for _, f := range findings {
		if f.warning {
			warnings = append(warnings, "- warning: "+f.text)
			continue
		}
		fmt.Fprintln(out, "- "+f.text)
	}
	if len(warnings) == len(findings) {
		fmt.Fprintln(out, "no problems found")
	}
	for _, w := range warnings {
		fmt.Fprintln(out, w)
	}
	return problemsIn(findings)
}
