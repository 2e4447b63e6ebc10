package app

import (
	"context"
	"log/slog"

	"github.com/backplane-dev/backplane/internal/gateway"
	"github.com/backplane-dev/backplane/internal/httpd"
)

// reservedDescriptors are for what must go on when clients use all of theirs: health checks,
// the admin listener, the database, Redis, brokers and files. Of a low limit they are half.
const reservedDescriptors = 512

// lowShare is the part of the limits of connections below which the operator is warned.
const lowShare = 0.25

// FitLimits returns the environment with limits that the process can keep.
func FitLimits(env Env) Env {
	limitDescriptors(env, &env.Config.HTTP, &env.Config.Gateway)
	return env
}

// limitDescriptors lowers the limits of connections to what the process may open, so that
// clients cannot take the descriptors that the server itself needs.
func limitDescriptors(env Env, h *httpd.Config, g *gateway.Config) {
	limit, known := maxDescriptors()
	wanted := h.OpenConnections + h.Streams.Connections + g.Calls
	reserved := min(reservedDescriptors, limit/2)
	available := limit - reserved
	if !known || wanted <= available {
		return
	}
	share := max(float64(available)/float64(wanted), 0)
	level := slog.LevelDebug
	if share < lowShare {
		level = slog.LevelWarn
	}
	env.Log.Log(context.Background(), level, "the limit of open files is too low for the limits of connections, which are lowered: raise it (ulimit -n)",
		"limit", limit, "needed", wanted+reserved)
	for _, n := range []*int{&h.OpenConnections, &h.Streams.Connections, &g.Calls} {
		*n = max(int(float64(*n)*share), 1)
	}
	h.AddressConnections = min(h.AddressConnections, max(h.OpenConnections/2, 1))
}
