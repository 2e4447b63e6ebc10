// Package logwriter keeps a server independent of what reads its output: a pipe whose reader is
// stuck, a terminal that is paused, a collector that has died.
//
// A Writer puts records into a bounded queue and returns; one goroutine writes them out. A record
// that does not fit is dropped and counted, and a notice in the log tells how many were as soon
// as the output takes records again. A crash (kill -9) loses what is in the queue, which is
// empty unless the output is slow.
package logwriter

import (
	"bytes"
	"io"
	"sync"
	"sync/atomic"
	"time"
)

// DefaultLimit is the bound of the queue in bytes. Twice as much memory is used while one batch is
// being written and the next is full.
const DefaultLimit = 1 << 20

// Writer is a queue in front of an output. It is safe for concurrent use.
type Writer struct {
	out     io.Writer
	limit   int
	notice  func(dropped uint64) []byte
	dropped atomic.Uint64
	wake    chan struct{} // has a buffer of one: the queue is not empty, or closed
	done    chan struct{} // closed once the goroutine has ended

	mu     sync.Mutex
	queue  []byte
	closed bool
}

// New returns a Writer whose queue holds at most limit bytes, and starts its goroutine, which
// Close ends. notice makes the record that tells of dropped records; nil for none.
func New(out io.Writer, limit int, notice func(dropped uint64) []byte) *Writer {
	if notice == nil {
		notice = func(uint64) []byte { return nil }
	}
	w := &Writer{out: out, limit: limit, notice: notice, wake: make(chan struct{}, 1), done: make(chan struct{})}
	go w.run()
	return w
}

// Write queues one record, or drops and counts it. It never blocks and never fails: a logger can
// do nothing about its output.
func (w *Writer) Write(record []byte) (int, error) {
	w.mu.Lock()
	fits := !w.closed && len(w.queue)+len(record) <= w.limit
	if fits {
		w.queue = append(w.queue, record...)
	}
	w.mu.Unlock()
	if !fits {
		w.dropped.Add(1)
		return len(record), nil
	}
	w.signal()
	return len(record), nil
}

// Dropped returns how many records were dropped: those that did not fit into the queue, and those
// that the output refused.
func (w *Writer) Dropped() uint64 { return w.dropped.Load() }

// Close writes out what is queued, for at most the given time, and ends the goroutine as soon as the
// output returns. Later records are dropped.
func (w *Writer) Close(limit time.Duration) {
	w.mu.Lock()
	w.closed = true
	w.mu.Unlock()
	w.signal()
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case <-w.done:
	case <-timer.C:
	}
}

func (w *Writer) signal() {
	select {
	case w.wake <- struct{}{}:
	default: // a signal is pending
	}
}

// run writes batches until the queue is closed and empty.
func (w *Writer) run() {
	defer close(w.done)
	var batch []byte
	var told uint64 // of the dropped records, those that a notice has told of
	for range w.wake {
		for {
			var last bool
			batch, last = w.take(batch)
			if len(batch) == 0 && last {
				return
			}
			if len(batch) == 0 {
				break
			}
			told = w.writeBatch(batch, told)
		}
	}
}

// take swaps the queue for an empty one, which reuses the memory of the last batch, and reports
// whether the queue is closed.
func (w *Writer) take(last []byte) (batch []byte, closed bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	batch, w.queue = w.queue, last[:0]
	return batch, w.closed
}

// writeBatch writes a batch, with a notice if records were dropped since the last notice, and
// returns how many dropped records have been told of.
func (w *Writer) writeBatch(batch []byte, told uint64) uint64 {
	dropped := w.Dropped()
	if dropped > told {
		if _, err := w.out.Write(w.notice(dropped - told)); err == nil {
			told = dropped
		}
	}
	if _, err := w.out.Write(batch); err != nil {
		w.dropped.Add(uint64(bytes.Count(batch, []byte{'\n'}))) //nolint:gosec // a count is not negative
	}
	return told
}
