package connection

import (
	"github.com/backplane-dev/backplane/internal/auth"
	"github.com/backplane-dev/backplane/internal/uid"
)

// index finds connections by whom and what a revocation may name, so that one costs as much as the
// connections that it concerns. Anonymous callers have nothing that can be revoked.
type index struct {
	byUser       map[uid.User]set
	byCredential map[string]set
	principals   map[Connection]*auth.Principal // under which each is found
}

type set map[Connection]struct{}

func newIndex() index {
	return index{byUser: map[uid.User]set{}, byCredential: map[string]set{}, principals: map[Connection]*auth.Principal{}}
}

// put makes the connection be found under the principal, and no longer under an earlier one.
func (x *index) put(c Connection, p *auth.Principal) {
	x.remove(c)
	if p == nil {
		return
	}
	x.principals[c] = p
	addTo(x.byUser, p.UserID, c)
	addTo(x.byCredential, p.Credential.ID, c)
}

func (x *index) remove(c Connection) {
	p, ok := x.principals[c]
	if !ok {
		return
	}
	delete(x.principals, c)
	removeFrom(x.byUser, p.UserID, c)
	removeFrom(x.byCredential, p.Credential.ID, c)
}

// concerned returns the connections whose credentials the revocation may concern.
func (x *index) concerned(r auth.Revocation) set {
	switch {
	case r.User != "":
		return x.byUser[r.User]
	case r.CredentialID != "":
		return x.byCredential[r.CredentialID]
	}
	all := make(set, len(x.principals))
	for c := range x.principals {
		all[c] = struct{}{}
	}
	return all
}

func addTo[K comparable](sets map[K]set, key K, c Connection) {
	if sets[key] == nil {
		sets[key] = set{}
	}
	sets[key][c] = struct{}{}
}

func removeFrom[K comparable](sets map[K]set, key K, c Connection) {
	delete(sets[key], c)
	if len(sets[key]) == 0 {
		delete(sets, key)
	}
}
