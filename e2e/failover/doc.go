// Package failover proves that nodes follow the PostgreSQL server that can write, through a proxy, a
// pooler or several hosts in the URL: after a fail-over every acknowledged order is there once, reads
// return what the node wrote, and no follower misses an event.
package failover
