// Package gateway proves who may call a service through the gateway, which credentials
// the service gets, which addresses are denied (SSRF), and that callers do not notice
// instances that are killed.
package gateway
