package store

import (
	"context"

	entsql "entgo.io/ent/dialect/sql"

	"github.com/backplane-dev/backplane/internal/fairshare"
)

// Parts of a pool whose connections one caller may hold.
const (
	callerPart     = 4 // a quarter
	credentialPart = 2 // a half of the few for credentials, which many callers behind one address may need at a time
)

// permits bounds how many connections of a pool one caller holds: a user, or the anonymous callers
// of one address. The caller's other statements wait in a queue of its own, so that at most its
// share stands ahead of the statements of others. All callers wait in one queue. Work of the
// server itself is not bounded. Nil permits bound nothing.
type permits struct {
	size   int64
	shares *fairshare.Shares
	queue  *queue
}

// newPermits returns permits for a pool of so many connections, of which each caller holds at most a part.
func newPermits(conns, part int) *permits {
	return &permits{size: int64(max(1, conns/part)), shares: fairshare.New(), queue: newQueue(conns)}
}

// acquire waits until the caller of ctx may use another connection, or ctx ends. Its error may be SERVER_BUSY. The caller of
// acquire releases the permit once the connection is back in the pool. Code that has a
// permit must not acquire another.
func (p *permits) acquire(ctx context.Context) (permit, error) {
	if p == nil {
		return permit{}, nil
	}
	caller := fairshare.Caller(ctx)
	if caller == "" {
		return permit{}, nil
	}
	hold, err := p.shares.Acquire(ctx, caller, 1, p.size)
	if err != nil {
		return permit{}, err
	}
	if err := p.queue.acquire(ctx); err != nil {
		hold.Release()
		return permit{}, err
	}
	return permit{p.queue, hold}, nil
}

// permit allows its owner to use one connection. The zero value needs no release.
type permit struct {
	queue *queue
	hold  fairshare.Hold
}

func (p permit) release() {
	if p.queue != nil {
		p.queue.release()
		p.hold.Release()
	}
}

// permittedRows are rows that hold a permit until they are closed.
type permittedRows struct {
	entsql.ColumnScanner

	permit permit
}

// Close implements entsql.ColumnScanner.
func (r *permittedRows) Close() error {
	err := r.ColumnScanner.Close()
	r.permit.release()
	r.permit = permit{}
	return err
}
