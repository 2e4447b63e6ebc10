// Package gateway proves which callers the gateway admits, which credentials
// the service gets, which addresses are denied (SSRF), and that callers do not notice
// instances that are killed.
package gateway
