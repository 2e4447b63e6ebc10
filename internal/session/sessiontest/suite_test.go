package sessiontest

import "testing"

func TestMemory(t *testing.T) {
	t.Parallel()
	Run(t, func(testing.TB) Subject { return NewMemory().Subject() })
}
