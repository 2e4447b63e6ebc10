package gateway

import "sync/atomic"

// metrics is what the gateway counts.
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

// Stats is what a Gateway has counted so far.
type Stats struct {
	Refused   uint64 // before an instance was looked for
	OK        uint64 // answered by an instance, whatever the answer was
	Failed    uint64 // no instance answered
	Cut       uint64 // answers that broke off after they had begun
	Cancelled uint64 // by their callers
	Upgraded  uint64 // of OK, connections that speak another protocol

	RetriedConnect uint64 // since no connection could be made
	RetriedReset   uint64 // since the connection was lost
	RetriedStatus  uint64 // since the answer was 502, 503 or 504
	OverBudget     uint64 // retries that the budget did not allow

	CircuitsOpened uint64
	CircuitRefused uint64 // calls that failed at once, as no circuit was closed
	Ejections      uint64 // of instances by the balance, of all picks
	InFlight       int    // calls at the moment
}

// Stats returns what was counted so far.
func (g *Gateway) Stats() Stats {
	c := &g.metrics
	return Stats{
		Refused: c.refused.Load(), OK: c.ok.Load(), Failed: c.failed.Load(), Cut: c.cut.Load(), Cancelled: c.cancelled.Load(), Upgraded: c.upgraded.Load(),
		RetriedConnect: c.retriedConnect.Load(), RetriedReset: c.retriedReset.Load(), RetriedStatus: c.retriedStatus.Load(), OverBudget: c.overBudget.Load(),
		CircuitsOpened: c.opened.Load(), CircuitRefused: c.circuitRefused.Load(), Ejections: g.deps.Pool.Ejections(), InFlight: g.semaphore.inUse(),
	}
}
