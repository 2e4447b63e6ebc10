// Package clock tests a cluster in which the clock of one node is wrong.
package clock
