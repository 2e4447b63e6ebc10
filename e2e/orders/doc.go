// Package orders proves the life of an order on both databases: no order is lost, placed
// twice or sold without stock, whatever clients repeat and however the server dies.
package orders
