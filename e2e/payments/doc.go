// Package payments proves that orders always reach an end: charged once and PAID, or CANCELLED with their
// stock back, whatever the payment provider does.
package payments
