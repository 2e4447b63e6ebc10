package coalesce_test

import (
	"testing"

	"github.com/backplane-dev/backplane/internal/coalesce"
)

func TestSignal_merges_calls_between_two_receives(t *testing.T) {
	t.Parallel()
	s := coalesce.NewSignal()
	for range 3 {
		s.Set()
	}
	<-s
	select {
	case <-s:
		t.Error("a second receive returned, want one for all calls")
	default:
	}
	s.Set()
	<-s
}
