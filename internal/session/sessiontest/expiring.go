package sessiontest

import (
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/backplane-dev/backplane/internal/claim"
	"github.com/backplane-dev/backplane/internal/session"
	"github.com/backplane-dev/backplane/internal/uid"
)

// announcesOnce has several nodes announce keys at once: each key that ends soon once, and no other.
func announcesOnce(t *testing.T, s Subject) {
	ada := s.account(t, "ada")
	s.key(t, ada, at.Add(-2*time.Hour)) // has ended
	s.key(t, ada, at.Add(session.ExpiryNotice))
	revoked := s.key(t, ada, at)
	_, err := s.Store.UpdateKey(t.Context(), claim.None, revoked.ID, func(k *session.APIKey) error {
		k.Revoke(at)
		return nil
	})
	must(t, err)
	want := map[string]bool{}
	var first uid.APIKey
	for i := range 5 {
		k := s.key(t, ada, at.Add(-time.Duration(i)*time.Minute))
		want[string(k.ID)], first = true, k.ID
	}
	var nodes sync.WaitGroup
	var announced atomic.Int64
	for range 4 {
		nodes.Go(func() {
			for range 3 {
				n, err := s.Store.AnnounceExpiring(t.Context(), at, at.Add(session.ExpiryNotice), 2)
				if err != nil || n > 2 {
					t.Errorf("AnnounceExpiring = %d, %v, want at most 2", n, err)
				}
				announced.Add(int64(n))
			}
		})
	}
	nodes.Wait()
	if n, err := s.Store.AnnounceExpiring(t.Context(), at.Add(time.Minute), at.Add(session.ExpiryNotice), 10); announced.Load() != 5 || n != 0 || err != nil {
		t.Errorf("four nodes announced %d keys, and one later %d, %v; want 5 and 0", announced.Load(), n, err)
	}
	for _, e := range s.Events(t) {
		if e.Type != session.EventAPIKeyExpiring {
			continue
		}
		if !want[e.SubjectID] || e.SubjectVersion != 2 {
			t.Errorf("there is the event %+v, want one for each key that ends soon, at its next version", e)
		}
		delete(want, e.SubjectID)
	}
	if len(want) > 0 {
		t.Errorf("%v were not announced", want)
	}
	keys, n, err := s.Store.ExpiringKeys(t.Context(), at, at.Add(session.ExpiryNotice), 2)
	if err != nil || n != 5 || len(keys) != 2 || keys[0].ID != first || keys[0].ExpiryAnnouncedAt == nil {
		t.Errorf("ExpiringKeys = %v, %d, %v, want the first two of five", keys, n, err)
	}
}
