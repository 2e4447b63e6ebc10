// Package attack proves what clients cannot do to a server: each test is an attack, over every
// transport that it applies to, and what the server must still be afterwards.
package attack
