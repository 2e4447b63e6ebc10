// Package accounts proves that an ADMIN and the operator can open, change and close accounts.
package accounts
