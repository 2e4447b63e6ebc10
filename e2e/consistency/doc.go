// Package consistency proves docs/consistency.md: it records what clients read and wrote
// through two nodes and checks the history for stale, lost and contradicting reads.
package consistency
