package connection

import (
	"fmt"
	"testing"

	"github.com/backplane-dev/backplane/internal/auth"
	"github.com/backplane-dev/backplane/internal/uid"
)

func principalOf(user, key string) *auth.Principal {
	return &auth.Principal{UserID: uid.User(user), Credential: auth.APIKeyCredential(uid.APIKey(key))}
}

func TestIndex_finds_what_a_revocation_concerns(t *testing.T) {
	t.Parallel()
	x := newIndex()
	conns := map[string]*fakeConnection{}
	put := func(name string, p *auth.Principal) {
		if conns[name] == nil {
			conns[name] = &fakeConnection{}
		}
		x.put(conns[name], p)
	}
	put("a", principalOf("usr_1", "key_1"))
	put("b", principalOf("usr_1", "key_2"))
	put("c", principalOf("usr_2", "key_3"))
	put("anonymous", nil)
	put("later", nil)
	put("later", principalOf("usr_2", "key_4"))
	put("renewed", principalOf("usr_3", "key_5"))
	put("renewed", principalOf("usr_3", "key_6"))
	put("gone", principalOf("usr_1", "key_1"))
	x.remove(conns["gone"])
	for _, tt := range []struct {
		r    auth.Revocation
		want []string
	}{
		{auth.Revocation{User: "usr_1"}, []string{"a", "b"}},
		{auth.Revocation{User: "usr_2"}, []string{"c", "later"}},
		{auth.Revocation{CredentialID: "key_1"}, []string{"a"}},
		{auth.Revocation{CredentialID: "key_5"}, nil},
		{auth.Revocation{CredentialID: "key_6"}, []string{"renewed"}},
		{auth.Revocation{User: "usr_9"}, nil},
		{auth.Revocation{}, []string{"a", "b", "c", "later", "renewed"}},
	} {
		got := x.concerned(tt.r)
		if len(got) != len(tt.want) {
			t.Errorf("%+v concerns %d connections, want %v", tt.r, len(got), tt.want)
		}
		for _, name := range tt.want {
			if _, ok := got[conns[name]]; !ok {
				t.Errorf("%+v does not concern %s", tt.r, name)
			}
		}
	}
	for _, c := range conns {
		x.remove(c)
	}
	if len(x.byUser)+len(x.byCredential)+len(x.principals) > 0 {
		t.Errorf("an index without connections keeps %+v", x)
	}
}

// BenchmarkManager_Recheck tells a node with 20,000 connections that the rights of a user of one of
// them have changed.
func BenchmarkManager_Recheck(b *testing.B) {
	const connections = 20_000
	m := &Manager{index: newIndex()}
	for i := range connections {
		m.index.put(&fakeConnection{}, principalOf(fmt.Sprint("usr_", i), fmt.Sprint("key_", i)))
	}
	b.ReportAllocs()
	for i := range b.N {
		m.Recheck(auth.Revocation{User: uid.User(fmt.Sprint("usr_", i%connections))})
	}
}
