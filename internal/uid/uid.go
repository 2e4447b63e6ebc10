// Package uid owns the identifiers of all entities: their format, generation and
// kinds.
//
// An id is a short type prefix, an underscore and a UUIDv7 in 26 characters of
// Crockford's base 32 (lower case), e.g. usr_01j9zq4m8ye7v9k2t3w5x6y7z8. Ids of
// one type sort by the time they were made, to the millisecond. The format is
// that of TypeID (github.com/jetify-com/typeid), restricted to our prefixes.
package uid

import (
	"crypto/rand"
	"encoding/binary"
	"strings"
	"time"
)

// The identifiers, one type each, so that the compiler keeps them apart.
type (
	User     string // an account
	Product  string // something that can be ordered
	Order    string // an order
	Payment  string // the payment of an order
	Session  string // a signed-in session
	APIKey   string // an API key
	Event    string // an entry of the event log
	Service  string // a service of the registry
	Instance string // an instance of a service

	DeadLetter string // an event that a consumer failed to process
)

// Kind is the type prefix of an id.
type Kind string

// The kinds of ids.
const (
	KindUser     Kind = "usr"
	KindProduct  Kind = "prd"
	KindOrder    Kind = "ord"
	KindPayment  Kind = "pay"
	KindSession  Kind = "ses"
	KindAPIKey   Kind = "key"
	KindEvent    Kind = "evt"
	KindService  Kind = "svc"
	KindInstance Kind = "ins"

	KindDeadLetter Kind = "dlt"
)

// Kinds returns every kind.
func Kinds() []Kind {
	return []Kind{KindUser, KindProduct, KindOrder, KindPayment, KindSession, KindAPIKey, KindEvent, KindService, KindInstance, KindDeadLetter}
}

// NewUser returns a fresh id that sorts at the given time.
func NewUser(at time.Time) User { return User(newID(KindUser, at)) }

// NewProduct returns a fresh id that sorts at the given time.
func NewProduct(at time.Time) Product { return Product(newID(KindProduct, at)) }

// NewOrder returns a fresh id that sorts at the given time.
func NewOrder(at time.Time) Order { return Order(newID(KindOrder, at)) }

// NewPayment returns a fresh id that sorts at the given time.
func NewPayment(at time.Time) Payment { return Payment(newID(KindPayment, at)) }

// NewSession returns a fresh id that sorts at the given time.
func NewSession(at time.Time) Session { return Session(newID(KindSession, at)) }

// NewAPIKey returns a fresh id that sorts at the given time.
func NewAPIKey(at time.Time) APIKey { return APIKey(newID(KindAPIKey, at)) }

// NewEvent returns a fresh id that sorts at the given time.
func NewEvent(at time.Time) Event { return Event(newID(KindEvent, at)) }

// NewService returns a fresh id that sorts at the given time.
func NewService(at time.Time) Service { return Service(newID(KindService, at)) }

// NewInstance returns a fresh id that sorts at the given time.
func NewInstance(at time.Time) Instance { return Instance(newID(KindInstance, at)) }

// NewDeadLetter returns a fresh id that sorts at the given time.
func NewDeadLetter(at time.Time) DeadLetter { return DeadLetter(newID(KindDeadLetter, at)) }

// Valid reports whether the id is well formed.
func (id User) Valid() bool { return Is(KindUser, string(id)) }

// Valid reports whether the id is well formed.
func (id Product) Valid() bool { return Is(KindProduct, string(id)) }

// Valid reports whether the id is well formed.
func (id Order) Valid() bool { return Is(KindOrder, string(id)) }

// Valid reports whether the id is well formed.
func (id Payment) Valid() bool { return Is(KindPayment, string(id)) }

// Valid reports whether the id is well formed.
func (id Session) Valid() bool { return Is(KindSession, string(id)) }

// Valid reports whether the id is well formed.
func (id APIKey) Valid() bool { return Is(KindAPIKey, string(id)) }

// Valid reports whether the id is well formed.
func (id Service) Valid() bool { return Is(KindService, string(id)) }

// Valid reports whether the id is well formed.
func (id Instance) Valid() bool { return Is(KindInstance, string(id)) }

// Valid reports whether the id is well formed.
func (id DeadLetter) Valid() bool { return Is(KindDeadLetter, string(id)) }

// Is reports whether s is a well-formed id of the kind.
func Is(kind Kind, s string) bool {
	k, ok := KindOf(s)
	return ok && k == kind
}

// KindOf returns the kind of a well-formed id; ok is false for anything else,
// so that foreign strings stop here and never reach a database.
func KindOf(s string) (kind Kind, ok bool) {
	prefix, suffix, found := strings.Cut(s, "_")
	if !found || len(suffix) != suffixLen || suffix[0] > '7' {
		return "", false
	}
	for i := range len(suffix) {
		if strings.IndexByte(alphabet, suffix[i]) < 0 {
			return "", false
		}
	}
	for _, k := range Kinds() {
		if string(k) == prefix {
			return k, true
		}
	}
	return "", false
}

const (
	alphabet  = "0123456789abcdefghjkmnpqrstvwxyz" // Crockford's base 32
	suffixLen = 26                                 // 128 bits at 5 bits a character
)

// newID makes a UUIDv7 (RFC 9562): 48 bits of Unix milliseconds, then random.
func newID(kind Kind, at time.Time) string {
	var u [16]byte
	_, _ = rand.Read(u[:]) // documented never to fail
	return encodeBase32(kind, at, u)
}

// Derive returns the id of the kind that belongs to a time and 16 bytes of the
// caller's own. Equal arguments give equal ids: seeding is deterministic.
func Derive(kind Kind, at time.Time, random [16]byte) string { return encodeBase32(kind, at, random) }

func encodeBase32(kind Kind, at time.Time, u [16]byte) string {
	var ms [8]byte
	binary.BigEndian.PutUint64(ms[:], uint64(at.UnixMilli())<<16)
	copy(u[:6], ms[:6])
	u[6] = u[6]&0x0f | 0x70 // version 7
	u[8] = u[8]&0x3f | 0x80 // variant of RFC 9562

	hi, lo := binary.BigEndian.Uint64(u[:8]), binary.BigEndian.Uint64(u[8:])
	var out [suffixLen]byte
	for i := suffixLen - 1; i >= 0; i-- {
		out[i] = alphabet[lo&31]
		lo = lo>>5 | hi<<59
		hi >>= 5
	}
	return string(kind) + "_" + string(out[:])
}
