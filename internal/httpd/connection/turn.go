package connection

import "context"

// turn is a lock that a goroutine can wait for no longer than its context lives:
// whoever holds it may be writing to a client that does not read. Some are for a
// number of goroutines at a time.
type turn chan struct{}

func newTurn() turn { return newTurns(1) }

func newTurns(n int) turn { return make(turn, n) }

// take waits for the turn; it reports false if ctx ended first.
func (t turn) take(ctx context.Context) bool {
	select {
	case t <- struct{}{}:
		return true
	case <-ctx.Done():
		return false
	}
}

// hold waits for the turn however long it takes.
func (t turn) hold() { t <- struct{}{} }

// try takes the turn if nobody has it.
func (t turn) try() bool {
	select {
	case t <- struct{}{}:
		return true
	default:
		return false
	}
}

func (t turn) give() { <-t }
