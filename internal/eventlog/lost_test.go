package eventlog_test

import (
	"testing"

	"github.com/backplane-dev/backplane/internal/eventlog"
	"github.com/backplane-dev/backplane/internal/eventlog/eventlogtest"
	"github.com/backplane-dev/backplane/internal/notify"
	"github.com/backplane-dev/backplane/internal/testenv"
)

func TestFeed_goes_on_after_its_connections_were_lost_without_a_word(t *testing.T) {
	t.Parallel()
	direct, around, proxy := eventlogtest.PostgresBehindProxy(t)
	w := eventlogtest.OpenShop(t, direct, 1)
	far := eventlogtest.StartNode(t, around, (&notify.Memory{}).Join(), eventlog.PipelineConfig{})
	w.Kill() // from here on it is the far node that numbers
	testenv.Eventually(t, "the far node numbers events and has read them", func() bool { return far.Pipeline.LeadsSequencer() && far.Pipeline.Hub.Head().Position > 0 })
	had := far.Pipeline.Hub.Head().Position
	proxy.Lose()
	w.Update(t, w.Products[0], 1)
	testenv.Eventually(t, "it has numbered and delivered the next event", func() bool { return far.Pipeline.Hub.Head().Position > had })
}
