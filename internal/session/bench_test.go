package session_test

import (
	"testing"

	"github.com/backplane-dev/backplane/internal/session"
)

// BenchmarkService_Authenticate shows what a request pays for its credential:
// warm within a second of another, cold after everything was forgotten.
func BenchmarkService_Authenticate(b *testing.B) {
	f := newFixture(b, session.Config{})
	tokens, ctx := f.signIn(b, "ada")
	for _, bb := range []struct{ name, bearer string }{{"token", tokens.AccessToken}, {"key", f.key(ctx, b)}} {
		b.Run(bb.name+"/warm", func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := f.Authenticate(ctx, bb.bearer); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run(bb.name+"/warm/parallel", func(b *testing.B) {
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					if _, err := f.Authenticate(ctx, bb.bearer); err != nil {
						b.Error(err)
					}
				}
			})
		})
		b.Run(bb.name+"/cold", func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				f.ClearCaches()
				if _, err := f.Authenticate(ctx, bb.bearer); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkService_Refresh shows what an exchange costs without the database.
func BenchmarkService_Refresh(b *testing.B) {
	f := newFixture(b, session.Config{})
	tokens, ctx := f.signIn(b, "ada")
	for b.Loop() {
		var err error
		if tokens, err = f.Refresh(ctx, tokens.RefreshToken); err != nil {
			b.Fatal(err)
		}
	}
}
