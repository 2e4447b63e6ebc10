// Package targets tests servers whose database file vanishes or is replaced under them.
package targets
