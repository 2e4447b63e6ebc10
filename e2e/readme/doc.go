// Package readme proves that README does what it says: its lines are run as they stand there.
package readme
