package cli

import (
	"context"
	"encoding/json"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/backplane-dev/backplane/internal/app"
	"github.com/backplane-dev/backplane/internal/security"
	"github.com/backplane-dev/backplane/internal/securitylog"
)

func (c *commandLine) securityCommand() *cobra.Command {
	x := securityExport{}
	events := &cobra.Command{
		Use:   "events",
		Short: "write security events as JSON lines",
		Long: "Writes the security events of all nodes, the oldest first, one JSON object a line: for a file, or a collector of logs.\n" +
			"An event is written once. With --follow the command goes on with events that are stored from then on, until it is stopped;\n" +
			"one that is started again with --since writes the events since then again, each with the same id.",
		Args: atMost(0),
		RunE: c.withToolbox(x.run),
	}
	events.Flags().StringVar(&x.since, "since", "", "only events that were stored since `TIME`: RFC 3339, or how long ago, such as 24h")
	events.Flags().StringVar(&x.typ, "type", "", "only events of `TYPE`, such as sign_in.failed")
	events.Flags().BoolVar(&x.follow, "follow", false, "go on with new events")
	events.Flags().Bool("json", true, "write JSON, the only form: as for other listings")
	cmd := &cobra.Command{Use: "security", Short: "export security events", Args: unknownVerb("events"), RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() }}
	cmd.AddCommand(events)
	return cmd
}

// securityExport writes security events.
type securityExport struct {
	since, typ string
	follow     bool
}

func (x *securityExport) run(ctx context.Context, env app.Env, tools *app.Toolbox, _ []string) error {
	after, err := parseSince(x.since, tools.DB.Clock().Now())
	if err != nil {
		return err
	}
	if x.typ != "" && !slices.Contains(security.EventTypes(), security.EventType(x.typ)) {
		return usagef("there is no type %q of security events; docs/security.md lists them", x.typ)
	}
	out := json.NewEncoder(env.Out)
	out.SetEscapeHTML(false)
	write := func(e *security.Event) error {
		if x.typ != "" && string(e.Type) != x.typ {
			return nil
		}
		return out.Encode(newSecurityLine(e))
	}
	export := securitylog.NewExport(tools.DB.SecurityEvents(), after)
	if x.follow {
		return export.Follow(ctx, write)
	}
	return export.Write(ctx, write)
}

// parseSince reads a time, or how long before now it is; empty is the beginning.
func parseSince(text string, now time.Time) (time.Time, error) {
	if text == "" {
		return time.Time{}, nil
	}
	if d, err := time.ParseDuration(text); err == nil && d >= 0 {
		return now.Add(-d), nil
	}
	at, err := time.Parse(time.RFC3339, text)
	if err != nil {
		return at, usagef("--since is %q, but it must be a time such as 2026-11-30T08:00:00Z or 24h", text)
	}
	return at.UTC(), nil
}

// securityLine is a security event as a JSON line shows it, by the names that it has in the schema. They are API.
type securityLine struct {
	ID         string             `json:"id"`
	Type       security.EventType `json:"type"`
	OccurredAt time.Time          `json:"occurredAt"`
	LastAt     time.Time          `json:"lastAt"`
	RecordedAt time.Time          `json:"recordedAt"`
	Count      int                `json:"count"`
	User       string             `json:"userId,omitempty"`
	Actor      string             `json:"actor,omitempty"`
	Session    string             `json:"sessionId,omitempty"`
	Key        string             `json:"apiKeyId,omitempty"`
	Address    string             `json:"address,omitempty"`
	UserAgent  string             `json:"userAgent,omitempty"`
	RequestID  string             `json:"requestId,omitempty"`
	Detail     string             `json:"detail,omitempty"`
}

func newSecurityLine(e *security.Event) securityLine {
	return securityLine{
		e.ID, e.Type, e.OccurredAt, e.LastAt, e.RecordedAt, e.Count, string(e.UserID), e.Actor, string(e.SessionID), string(e.APIKeyID),
		e.Address, e.UserAgent, e.RequestID, e.Detail,
	}
}
