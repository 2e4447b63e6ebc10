// Package app wires the packages into a server. It has one constructor for each
// part, in the files named after the parts; server.go calls them in build order,
// so that it reads as the map of the system. Commands other than serve open a
// Toolbox instead.
//
// This is the only package that knows both the configuration and the parts. A
// constructor starts nothing: what runs is in server.go. It owns no rule of any
// domain.
package app

import (
	"io"
	"log/slog"

	"github.com/backplane-dev/backplane/internal/config"
	"github.com/backplane-dev/backplane/internal/notify"
)

// Env is what the process was started with.
type Env struct {
	Config config.Config
	Log    *slog.Logger
	Out    io.Writer // standard output, for the operator

	Version string // of the product; empty if unknown

	OutIsTerminal bool // whether Out is a terminal, and not a file or a log

	DroppedLogRecords func() uint64 // how many the log has lost to a slow reader; nil if it never loses any
}

// RedirectRedisLog has the Redis client write to the log at level debug. Its logger
// belongs to the process, so call it once, before any client is opened.
func RedirectRedisLog(env Env) { notify.LogRedis(env.Log) }
