package gateway

import "sync/atomic"

// metrics are the gateway's counters.
type metrics struct {
	refused, ok, failed, cut, cancelled          atomic.Uint64
	retriedConnect, retriedReset, retriedStatus  atomic.Uint64
	overBudget, opened, circuitRefused, upgraded atomic.Uint64
}

func (c *metrics) recordOutcome(how string) {
	switch how {
	case outcomeOK:
		c.ok.Add(1)
	case outcomeCut:
		c.cut.Add(1)
	case outcomeCancelled:
		c.cancelled.Add(1)
	default:
		c.failed.Add(1)
	}
}

// Stats is a snapshot of the gateway's counters.
type Stats struct {
	Refused   uint64 // before an instance was picked
	OK        uint64 // an instance responded, with whatever status
	Failed    uint64 // no instance responded
	Cut       uint64 // responses that broke off after they had begun
	Cancelled uint64 // by their callers
	Upgraded  uint64 // of OK, connections upgraded to another protocol

	RetriedConnect uint64 // after no connection could be made
	RetriedReset   uint64 // after the connection was lost
	RetriedStatus  uint64 // after a response of 502, 503 or 504
	OverBudget     uint64 // retries that the budget did not allow

	CircuitsOpened uint64
	CircuitRefused uint64 // calls that failed at once, as every circuit breaker was open
	Ejections      uint64 // of instances by package balance, in all picks
	InFlight       int    // open calls now
}

// Stats returns a snapshot of the counters.
func (g *Gateway) Stats() Stats {
	c := &g.metrics
	return Stats{
		Refused: c.refused.Load(), OK: c.ok.Load(), Failed: c.failed.Load(), Cut: c.cut.Load(), Cancelled: c.cancelled.Load(), Upgraded: c.upgraded.Load(),
		RetriedConnect: c.retriedConnect.Load(), RetriedReset: c.retriedReset.Load(), RetriedStatus: c.retriedStatus.Load(), OverBudget: c.overBudget.Load(),
		CircuitsOpened: c.opened.Load(), CircuitRefused: c.circuitRefused.Load(), Ejections: g.deps.Pool.Ejections(), InFlight: g.semaphore.inUse(),
	}
}
