// Package consumers proves that each effect of an event happens once, whatever node dies
// or freezes, and that a dead letter can be replayed.
package consumers
