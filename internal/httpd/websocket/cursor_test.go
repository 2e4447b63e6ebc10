package websocket_test

import (
	"testing"
	"time"

	"github.com/backplane-dev/backplane/internal/httpd"
	"github.com/backplane-dev/backplane/internal/httpd/streamtest"
)

func TestSocket_sends_cursors(t *testing.T) {
	t.Parallel()
	streamtest.Run(t, httpd.Config{}, func(e *streamtest.Env) {
		c := e.Connect("")
		c.Subscribe("s", "subscription{ticks}")
		source := <-e.Sources
		source <- streamtest.EventAt("c1", 1)
		c.Want(`{"type":"next","id":"s","payload":{"data":{"ticks":1},"extensions":{"cursor":"c1"}}}`)
		source <- streamtest.Progress("c2")
		source <- streamtest.Progress("c3")
		c.WantNothing()
		time.Sleep(20 * time.Second)
		c.Want(`{"type":"ping","payload":{"cursor":"c3","id":"s"}}`)
		time.Sleep(time.Minute) // no new cursor to send
		c.WantNothing()
	})
}
