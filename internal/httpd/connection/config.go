package connection

import (
	"cmp"
	"fmt"
	"time"
)

// Config holds the limits of connections. Its zero value is ready to use.
type Config struct {
	Connections  int           // open at once on this node: WebSockets, event streams and reservations; default 20,000
	PerPrincipal int           // of them, those of one user, or of one address for anonymous callers; default 2,500
	Operations   int           // that run at once on one WebSocket or single connection; default 100
	MessageBytes int           // longest message that a WebSocket client may send; default 1 MiB
	MessageTime  time.Duration // to receive a message once it has begun; default 10 s
	InitTime     time.Duration // from the upgrade to connection_init, and from a reservation to its stream; default 10 s
	IdleTime     time.Duration // of a WebSocket without operations or messages; default 5 min
	KeepAlive    time.Duration // between keep-alives on a quiet connection; default 15 s
	StallTime    time.Duration // in which a client may read none of what is being written; default 5 min
	CheckTime    time.Duration // between two checks of a connection's credential, if Recheck asks for none; default 1 s
}

func (c Config) withDefaults() (Config, error) {
	for _, n := range []struct {
		value    *int
		fallback int
	}{
		{&c.Connections, 20_000},
		{&c.PerPrincipal, 2_500},
		{&c.Operations, 100},
		{&c.MessageBytes, 1 << 20},
	} {
		if *n.value < 0 {
			return c, fmt.Errorf("connection config: sizes and counts must not be negative: %+v", c)
		}
		*n.value = cmp.Or(*n.value, n.fallback)
	}
	for _, d := range []struct {
		value    *time.Duration
		fallback time.Duration
	}{
		{&c.MessageTime, 10 * time.Second},
		{&c.InitTime, 10 * time.Second},
		{&c.IdleTime, 5 * time.Minute},
		{&c.KeepAlive, 15 * time.Second},
		{&c.StallTime, 5 * time.Minute},
		{&c.CheckTime, time.Second},
	} {
		if *d.value < 0 {
			return c, fmt.Errorf("connection config: times must not be negative: %+v", c)
		}
		*d.value = cmp.Or(*d.value, d.fallback)
	}
	return c, nil
}
