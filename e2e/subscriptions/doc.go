// Package subscriptions proves that a subscriber receives exactly the events it may see,
// resumes on any node without a gap or a repeat, and is told why its stream ends.
package subscriptions
