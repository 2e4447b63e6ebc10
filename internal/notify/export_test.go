package notify

import "time"

// TryAfter makes the bus try its connection when it was quiet for so long. Call
// it before Run.
func (b *Redis) TryAfter(quiet time.Duration) { b.quiet = quiet }
