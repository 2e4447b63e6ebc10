// Package cache is a read-through cache of rows in front of the stores, as decorators of them. It has
// two levels: the process's memory, and Redis if there is one. docs/consistency.md says what a reader
// may rely on.
//
//	reader ──► process memory ──miss──► singleflight ──► Redis ──miss──► store (the database)
//	               ▲                                       ▲
//	               └── fill, if the fill token is valid ───┴── fill, if the fill token still stands
//
//	event log ──► hub ──┬──► invalidates this process's entries, before any subscriber gets the event
//	                    └──► one node applies the events to Redis and advances its offset
//
// States of an entry in process memory, and what moves it:
//
//	            miss                 valid token, no newer version known
//	absent ───────────► filling ─────────────────────────────────────────► present
//	   ▲                   │ invalidated meanwhile: the value is returned but not kept   │
//	   ├───────────────────┘                                                             │
//	   └──── newer version known, evicted, expired, or everything invalidated ◄──────────┘
//
// States of a key in Redis:
//
//	            read                     fill with that token
//	absent ───────────► fill token (l) ───────────────────────► value (v)
//	   ▲                   │                                       │
//	   │                   └──── an event names a newer version ───┤
//	   └────── expires ────────────── tombstone (t) ◄──────────────┘
//
// # Invariants
//
// A row's version only rises, and a value only ever replaces an older one. Versions alone do not
// suffice, as the knowledge of a newer version can be lost. So a read takes a fill token before it
// begins, and every change, eviction or loss invalidates the token: in process memory it is an
// invalidation epoch, in Redis a text that stands where the value is to be.
//
// Minimum versions are the versions that this process knows of without holding their values. No older
// value is accepted from any level.
//
// Redis also holds a generation, which prefixes all keys, and its offset: the position up to which the
// log has been applied to it. Every value in Redis is at least as new as that position, whatever was
// lost on the way. A node that needs a higher offset than Redis has ignores its values; see decision 50.
//
// A value of Redis counts only with a MAC of this installation over key, version, time and data, and for
// one TTL from that time; see decision 120.
//
// A node that lags behind the log bypasses the cache.
//
// # Not here
//
// The cache never keeps the absence of a row, errors, secrets, or permissions: the domains check
// permissions behind it.
package cache
