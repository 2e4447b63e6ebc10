package notify

import "time"

// SetIdleTimeout sets the idle time after which the notifier probes its connection. Call it
// before Listen.
func (b *Redis) SetIdleTimeout(quiet time.Duration) { b.idleTimeout = quiet }
