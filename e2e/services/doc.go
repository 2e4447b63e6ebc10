// Package services proves registration, health, fair picks and mass-failure protection of
// the service registry, on one node and on several.
package services
