// Package upgrade proves that nodes are upgraded one by one: this release serves on while the next one
// migrates the database and serves beside it, until a migration says that it cannot.
package upgrade
