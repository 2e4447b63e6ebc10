package sse_test

import (
	"bufio"
	"net/http"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/backplane-dev/backplane/internal/httpd"
	"github.com/backplane-dev/backplane/internal/httpd/connection"
	"github.com/backplane-dev/backplane/internal/httpd/streamtest"
)

func TestReservation_counts_operations_until_they_finish(t *testing.T) {
	t.Parallel()
	streamtest.Run(t, httpd.Config{Streams: connection.Config{Operations: 2}}, func(e *streamtest.Env) {
		token := e.Reserve(nil)
		body := bufio.NewReader(e.Request("GET", "/graphql?token="+token, streamtest.AcceptEvents, "").Body)
		e.WantEvents(body, ":")
		ask := func(id string, want int) {
			if got := e.StartOperation(token, id, "{hello}"); got != want {
				t.Errorf("status of %s = %d, want %d", id, got, want)
			}
			synctest.Wait()
		}
		stop := func(id string) {
			e.Request("DELETE", "/graphql?operationId="+id+"&token="+token, nil, "")
			synctest.Wait()
		}
		ask("a", http.StatusAccepted) // is being written, which cannot be undone
		stop("a")
		for range 100 {
			ask("b", http.StatusAccepted) // waits to be written
			stop("b")
		}
		ask("c", http.StatusAccepted)
		ask("d", http.StatusTooManyRequests) // finds no permit as long as a holds one
		hello := func(id string) string {
			return "event: next\ndata: {\"id\":\"" + id + "\",\"payload\":{\"data\":{\"hello\":\"hi anonymous\"}}}"
		}
		e.WantEvents(body, hello("a"), hello("c"), "event: complete\ndata: {\"id\":\"c\"}")
		synctest.Wait()
		ask("e", http.StatusAccepted)
		e.WantEvents(body, hello("e"))
	})
}

func TestReservation_carries_many_operations(t *testing.T) {
	t.Parallel()
	streamtest.Run(t, httpd.Config{}, func(e *streamtest.Env) {
		token := e.Reserve(nil)
		operate := func(id, query string) int { return e.StartOperation(token, id, query) }
		if got := operate("early", "{hello}"); got != 202 { // waits for the stream
			t.Errorf("an operation before the stream: status = %d, want 202", got)
		}
		resp := e.Request("GET", "/graphql?token="+token, streamtest.AcceptEvents, "")
		body := bufio.NewReader(resp.Body)
		e.WantEvents(body, ":", `event: next`+"\n"+`data: {"id":"early","payload":{"data":{"hello":"hi anonymous"}}}`, `event: complete`+"\n"+`data: {"id":"early"}`)
		if second := e.Request("GET", "/graphql?token="+token, streamtest.AcceptEvents, ""); second.StatusCode != http.StatusConflict {
			t.Errorf("a second stream of one reservation: status = %d, want 409", second.StatusCode)
		}
		if got := operate("s", "subscription{ticks}"); got != 202 {
			t.Errorf("a subscription: status = %d, want 202", got)
		}
		source := <-e.Sources
		source <- streamtest.EventAt("c1", 1)
		e.WantEvents(body, `event: next`+"\n"+`data: {"id":"s","payload":{"data":{"ticks":1},"extensions":{"cursor":"c1"}}}`)
		got := map[string]int{
			"the id of a live operation": operate("s", "{hello}"),
			"no id":                      operate("", "{hello}"),
			"a wrong document":           operate("x", "{nothing}"),
		}
		want := map[string]int{"the id of a live operation": 409, "no id": 400, "a wrong document": 400}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("statuses (-want +got):\n%s", diff)
		}
		if resp := e.Request("GET", "/graphql?query={hello}&extensions={%22operationId%22:%22g%22}&token="+token, nil, ""); resp.StatusCode != http.StatusAccepted {
			t.Errorf("a query by GET: status = %d, want 202", resp.StatusCode)
		}
		e.WantEvents(body, `event: next`+"\n"+`data: {"id":"g","payload":{"data":{"hello":"hi anonymous"}}}`, `event: complete`+"\n"+`data: {"id":"g"}`)
		if resp := e.Request("DELETE", "/graphql?operationId=s&token="+token, nil, ""); resp.StatusCode != http.StatusOK {
			t.Errorf("stopping an operation: status = %d, want 200", resp.StatusCode)
		}
		synctest.Wait()
		select {
		case source <- 2:
			t.Error("the source of a stopped operation is still read")
		default:
		}
		_ = resp.Body.Close()
		synctest.Wait()
		if got := operate("late", "{hello}"); got != 404 {
			t.Errorf("an operation after the stream: status = %d, want 404", got)
		}
	})
}

func TestReservation_closes_unless_its_stream_comes(t *testing.T) {
	t.Parallel()
	streamtest.Run(t, httpd.Config{Streams: connection.Config{InitTime: time.Minute, Connections: 1}}, func(e *streamtest.Env) {
		token := e.Reserve(nil)
		if resp := e.Request("PUT", "/graphql", nil, ""); resp.StatusCode != http.StatusServiceUnavailable {
			t.Errorf("a reservation past the cap: status = %d, want 503", resp.StatusCode)
		}
		time.Sleep(61 * time.Second)
		synctest.Wait()
		if resp := e.Request("GET", "/graphql?token="+token, streamtest.AcceptEvents, ""); resp.StatusCode != http.StatusNotFound {
			t.Errorf("a reservation that was not used in time: status = %d, want 404", resp.StatusCode)
		}
		e.Reserve(nil)
	})
}

func TestReservation_belongs_to_its_user(t *testing.T) {
	t.Parallel()
	streamtest.Run(t, httpd.Config{}, func(e *streamtest.Env) {
		e.Tokens.Set("a", "usr_1")
		e.Tokens.Set("b", "usr_2")
		token := e.Reserve(map[string]string{"Authorization": "Bearer a"})
		as := func(authorization string) map[string]string {
			headers := map[string]string{"Accept": "text/event-stream", "Content-Type": "application/json"}
			if authorization != "" {
				headers["Authorization"] = authorization
			}
			return headers
		}
		const start = `{"query":"subscription{ticks}","extensions":{"operationId":"s"}}`
		steal := func(what string) {
			for _, authorization := range []string{"", "Bearer b", "Bearer bad"} {
				for _, r := range [][3]string{
					{"GET", "", ""}, {"POST", "", start}, {"GET", "query={hello}&extensions={%22operationId%22:%22g%22}&", ""}, {"DELETE", "operationId=s&", ""},
				} {
					if resp := e.Request(r[0], "/graphql?"+r[1]+"token="+token, as(authorization), r[2]); resp.StatusCode != http.StatusUnauthorized {
						t.Errorf("%s %s of %s with %q: status = %d, want 401", r[0], r[1], what, authorization, resp.StatusCode)
					}
				}
			}
		}
		steal("a reservation")
		body := bufio.NewReader(e.Request("GET", "/graphql?token="+token, as("Bearer a"), "").Body)
		e.WantEvents(body, ":")
		if resp := e.Request("POST", "/graphql?token="+token, as("Bearer a"), start); resp.StatusCode != http.StatusAccepted {
			t.Errorf("the user's operation: status = %d, want 202", resp.StatusCode)
		}
		source := <-e.Sources
		steal("an open stream")
		source <- streamtest.CallerEvent
		e.WantEvents(body, `event: next`+"\n"+`data: {"id":"s","payload":{"data":{"ticks":"usr_1"}}}`)
		e.Tokens.Set("c", "usr_1")
		if resp := e.Request("POST", "/graphql?token="+e.Reserve(nil), as("Bearer c"), start); resp.StatusCode != http.StatusUnauthorized {
			t.Errorf("a user's operation on the stream of an anonymous caller: status = %d, want 401", resp.StatusCode)
		}
		e.Tokens.Set("a", "")
		e.WantEvents(body,
			`event: next`+"\n"+`data: {"id":"s","payload":{"errors":[{"message":"The credential is no longer valid.","extensions":{"code":"UNAUTHENTICATED"}}]}}`,
			`event: complete`+"\n"+`data: {"id":"s"}`)
	})
}
