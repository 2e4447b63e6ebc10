// Package rest proves that legacy REST routes answer byte for byte as recorded, keep to
// their OpenAPI document under random requests, and share idempotency keys and versions
// with GraphQL.
package rest
