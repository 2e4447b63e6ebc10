package client

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// node is what stands for the registry where time is a test's: it answers at once,
// within the process.
type node func(req *http.Request, query string, vars map[string]any) (*http.Response, error)

func (n node) RoundTrip(req *http.Request) (*http.Response, error) {
	var in struct {
		Query     string
		Variables map[string]any
	}
	if err := json.NewDecoder(req.Body).Decode(&in); err != nil {
		return nil, err
	}
	return n(req, in.Query, in.Variables)
}

func newTestClient(t *testing.T, n node) *Client {
	t.Helper()
	c, err := New(Config{URLs: []string{"http://a", "http://b"}, Token: "t", HTTPClient: &http.Client{Transport: n}})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func reply(media, text string) *http.Response {
	return &http.Response{StatusCode: http.StatusOK, Header: http.Header{"Content-Type": {media}}, Body: io.NopCloser(strings.NewReader(text))}
}

func answerOf(text string) *http.Response { return reply("application/json", text) }

func instanceAnswer(query string) *http.Response {
	for _, field := range []string{"deregisterInstance", "registerInstance", "renewInstance", "drainInstance"} {
		if strings.Contains(query, field) {
			return answerOf(fmt.Sprintf(`{"data":{%q:{"instance":{"status":"PASSING","incarnation":7},"userErrors":[]}}}`, field))
		}
	}
	return answerOf(`{"errors":[{"message":"?","extensions":{"code":"GRAPHQL_VALIDATION_FAILED"}}]}`)
}

// TestHeartbeats_come_in_time lets an hour pass. Nothing may be left of a
// registration at its end, or the test would not end.
func TestHeartbeats_come_in_time(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		var at []time.Time
		c := newTestClient(t, func(_ *http.Request, query string, _ map[string]any) (*http.Response, error) {
			mu.Lock()
			defer mu.Unlock()
			if strings.Contains(query, "renewInstance") {
				at = append(at, time.Now())
			}
			return instanceAnswer(query), nil
		})
		r, err := c.Register(t.Context(), Registration{Service: "s", Instance: "i", URL: "http://i", TTL: 30 * time.Second})
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Hour) // of the test's time
		if err := r.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
		steps := map[time.Duration]bool{}
		for n := 1; n < len(at); n++ {
			step := at[n].Sub(at[n-1])
			if steps[step] = true; step > 10*time.Second || step < 8*time.Second {
				t.Errorf("%v lie between two heartbeats, want a third of 30 s less a fifth of it at most", step)
			}
		}
		if len(at) < 350 || len(steps) < 100 {
			t.Errorf("%d heartbeats in an hour, at %d distances: want them jittered", len(at), len(steps))
		}
		if !errors.Is(r.Err(), ErrClosed) {
			t.Errorf("Err = %v, want ErrClosed", r.Err())
		}
	})
}

// TestHeartbeats_slow_down_while_the_registry_is_away counts the tries of ten
// minutes, and wants the instance back within one third of its time to live.
func TestHeartbeats_slow_down_while_the_registry_is_away(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		away, tries := false, map[string]int{}
		c := newTestClient(t, func(req *http.Request, query string, _ map[string]any) (*http.Response, error) {
			mu.Lock()
			defer mu.Unlock()
			if away {
				tries[req.URL.Host]++
				return nil, errors.New("connection refused")
			}
			return instanceAnswer(query), nil
		})
		r, err := c.Register(t.Context(), Registration{Service: "s", Instance: "i", URL: "http://i", TTL: time.Minute})
		if err != nil {
			t.Fatal(err)
		}
		set := func(b bool) { mu.Lock(); defer mu.Unlock(); away = b }
		set(true)
		time.Sleep(10 * time.Minute)
		synctest.Wait()
		if r.State().Trouble == nil || r.Err() != nil {
			t.Errorf("without a registry: %+v, %v", r.State(), r.Err())
		}
		if n := tries["a"]; n < 60 || n > 140 || tries["b"] != n {
			t.Errorf("in ten minutes the nodes were tried %v times, want each about every 5 to 10 s", tries)
		}
		set(false)
		time.Sleep(10 * time.Second)
		synctest.Wait()
		if s := r.State(); s.Trouble != nil {
			t.Errorf("10 s after its return: %+v", s)
		}
		if err := r.Close(t.Context()); err != nil {
			t.Fatal(err)
		}
	})
}

// pipe is a body that stays open and returns what the test writes.
type pipe struct {
	*io.PipeReader
	w *io.PipeWriter
}

const serviceAnswer = `{"data":{"service":{"id":"svc","version":1,"strategy":"RANDOM","cursor":"t.1","degraded":null,"instances":{
	"nodes":[{"id":"ins","version":1,"instanceId":"i","url":"http://i","weight":1,"status":"PASSING","statusSince":"2026-03-01T00:00:00Z","metadata":{},"incarnation":1}],
	"pageInfo":{"hasNextPage":false,"endCursor":null}}}}}`

// TestWatch_gives_a_silent_stream_up has a registry that opens streams and says
// nothing more.
func TestWatch_gives_a_silent_stream_up(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		var after []string
		c := newTestClient(t, func(req *http.Request, query string, vars map[string]any) (*http.Response, error) {
			if !strings.HasPrefix(query, "subscription") {
				return answerOf(serviceAnswer), nil
			}
			mu.Lock()
			after = append(after, req.URL.Host+" "+req.Header.Get("Last-Event-ID"))
			mu.Unlock()
			r, w := io.Pipe()
			go func() { _, _ = io.WriteString(w, ":\n\nid: t.5\n\n") }()
			context.AfterFunc(req.Context(), func() { _ = w.CloseWithError(req.Context().Err()) })
			resp := reply("text/event-stream; charset=utf-8", "")
			resp.Body = pipe{r, w}
			return resp, nil
		})
		w, err := c.Watch(t.Context(), "s")
		if err != nil {
			t.Fatal(err)
		}
		began := time.Now()
		time.Sleep(time.Second)
		synctest.Wait()
		if set := w.Set(); !set.Stale.IsZero() || len(set.Instances) != 1 {
			t.Errorf("while the stream is there: %+v", *set)
		}
		var stale *Set
		for set := w.Set(); stale == nil; {
			next, err := w.Next(t.Context(), set)
			if err != nil {
				t.Fatal(err)
			}
			if set = next; !set.Stale.IsZero() {
				stale = set
			}
		}
		if took := time.Since(began); took < 45*time.Second || took > 46*time.Second {
			t.Errorf("it was given up after %v, want 45 s", took)
		}
		if !stale.Stale.Equal(began) || len(stale.Instances) != 1 || !errors.Is(stale.Trouble, errIdleTimeout) {
			t.Errorf("then the set is %+v, want it stale since it was last in contact at %v", *stale, began)
		}
		time.Sleep(time.Second)
		w.Close()
		mu.Lock()
		defer mu.Unlock()
		if fmt.Sprint(after) != "[a t.1 b t.5]" {
			t.Errorf("streams were opened %v, want the other node next, after the last cursor", after)
		}
	})
}

// TestWatch_reads_an_absent_service_as_an_empty_set has a service that is deregistered once the watch
// has read it, for an hour. A node that has lost its database answers the same from its memory, which decides nothing.
func TestWatch_reads_an_absent_service_as_an_empty_set(t *testing.T) {
	t.Parallel()
	const notFound = `{"errors":[{"message":"There is no such service.","extensions":{"code":"SERVICE_NOT_FOUND"}}]}`
	tests := map[string]struct {
		following string // what a subscription is answered
		database  string // what the node says of its event log
		empty     bool   // whether the set becomes empty
	}{
		"at following":                 {notFound, `{"data":{"eventCursor":"t.2"}}`, true},
		"at reading anew":              {`{"errors":[{"message":"m","extensions":{"code":"CURSOR_EXPIRED"}}]}`, `{"data":{"eventCursor":"t.2"}}`, true},
		"at a node of another release": {`{"errors":[{"message":"m","extensions":{"code":"CURSOR_INVALID"}}]}`, `{"data":{"eventCursor":"t.2"}}`, true},
		"at a node without database":   {`{"errors":[{"message":"m","extensions":{"code":"CURSOR_EXPIRED"}}]}`, `{"errors":[{"message":"m","extensions":{"code":"UNAVAILABLE"}}]}`, false},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				began := time.Now() // the first read takes no time of the test's clock
				absent := func() bool { return time.Since(began) > 0 && time.Since(began) < time.Hour }
				c := newTestClient(t, func(_ *http.Request, query string, _ map[string]any) (*http.Response, error) {
					switch {
					case strings.Contains(query, "eventCursor"):
						return answerOf(tt.database), nil
					case strings.HasPrefix(query, "subscription") && time.Since(began) < time.Hour:
						return answerOf(tt.following), nil
					case strings.HasPrefix(query, "subscription"):
						return answerOf(serviceAnswer), nil // no stream: the set stays as it was read
					case absent():
						return answerOf(`{"data":{"service":null}}`), nil
					}
					return answerOf(serviceAnswer), nil
				})
				w, err := c.Watch(t.Context(), "s")
				if err != nil {
					t.Fatal(err)
				}
				defer w.Close()
				time.Sleep(time.Minute)
				if set := w.Set(); tt.empty != (len(set.Instances) == 0) || tt.empty != set.Stale.IsZero() {
					t.Errorf("while the service is absent the set is %+v, want it empty and not stale: %v", *set, tt.empty)
				}
				time.Sleep(time.Hour)
				if set := w.Set(); len(set.Instances) != 1 {
					t.Errorf("once the service is back the set is %+v", *set)
				}
			})
		})
	}
}

func TestKnowledge_tells_old_news_from_new(t *testing.T) {
	t.Parallel()
	k := &serviceState{version: 3, instances: map[string]versionedInstance{}}
	since := time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC)
	instance := func(kind string, version int, status InstanceStatus, since time.Time) registryEvent {
		data, _ := json.Marshal(map[string]any{"instanceId": "i", "url": "http://i", "weight": 1, "status": status, "statusSince": since})
		return registryEvent{kind, "ins", version, data}
	}
	take := func(n registryEvent, want int, what string) {
		t.Helper()
		if err := k.apply(n); err != nil {
			t.Fatal(err)
		}
		if got := len(k.set("s").Instances); got != want {
			t.Errorf("after %s %d are in use, want %d", what, got, want)
		}
	}
	take(instance("INSTANCE_REGISTERED", 1, Passing, since), 1, "its registration")
	take(instance("INSTANCE_STATUS_CHANGED", 3, Critical, since.Add(time.Hour)), 0, "its end")
	take(instance("INSTANCE_STATUS_CHANGED", 2, Passing, since), 0, "an old event")
	take(registryEvent{"SERVICE_UPDATED", "svc", 4, json.RawMessage(`{"strategy":"RANDOM","degradedSince":"2026-03-01T00:30:00Z"}`)}, 1, "degraded")
	take(registryEvent{"SERVICE_UPDATED", "svc", 2, json.RawMessage(`{"strategy":"RANDOM"}`)}, 1, "an old event of the service")
	take(registryEvent{"SERVICE_DEREGISTERED", "svc", 5, json.RawMessage(`{"strategy":"RANDOM"}`)}, 0, "the end of the service")
	take(instance("INSTANCE_REGISTERED", 1, Passing, since), 1, "another one")
	take(registryEvent{"INSTANCE_DEREGISTERED", "ins", 2, nil}, 0, "its removal")
	take(registryEvent{"SOMETHING_NEW", "x", 1, nil}, 0, "an event type of a later release")
}

// FuzzStream reads what any server may send in place of a stream.
func FuzzStream(f *testing.F) {
	f.Add("event: next\nid: t.1\ndata: {\"data\":{\"serviceEvents\":{}}}\n\nevent: complete\ndata: \n\n")
	f.Add(":\n\nid: t.2\n\nretry: 1000\n: stopping\n\n")
	f.Add("data: {\"errors\":[{\"message\":\"m\",\"extensions\":{\"code\":\"CURSOR_EXPIRED\"}}]}\r\n\r\n")
	f.Fuzz(func(t *testing.T, text string) {
		c := newTestClient(t, func(*http.Request, string, map[string]any) (*http.Response, error) {
			return reply("text/event-stream", text), nil
		})
		s, err := c.subscribe(t.Context(), 0, subscribeService, nil, "")
		if err != nil {
			t.Fatal(err)
		}
		defer s.close()
		w := &Watch{state: &serviceState{instances: map[string]versionedInstance{}}, current: &Set{}, changed: make(chan struct{}), log: c.cfg.Logger}
		for n := 0; ; n++ {
			b, err := s.next(eventsField)
			if err != nil {
				break
			}
			if n > len(text) {
				t.Fatal("there are more blocks than bytes")
			}
			_ = w.applyMessage(b) // it must not panic
		}
	})
}

func TestCall_bounds_what_it_reads(t *testing.T) {
	t.Parallel()
	c := newTestClient(t, func(*http.Request, string, map[string]any) (*http.Response, error) {
		resp := answerOf("")
		resp.Body = io.NopCloser(io.MultiReader(strings.NewReader(`{"data":{"x":"`), bytes.NewReader(make([]byte, 2*maxAnswer))))
		return resp, nil
	})
	if err := c.DefineService(t.Context(), Service{Name: "s"}); err == nil || !strings.Contains(err.Error(), "more than") {
		t.Errorf("an endless answer gave %v", err)
	}
	for status, text := range map[int]string{http.StatusOK: "<html>", http.StatusBadGateway: "<html>", http.StatusNotFound: `{"type":"about:blank"}`} {
		c := newTestClient(t, func(*http.Request, string, map[string]any) (*http.Response, error) {
			resp := answerOf(text)
			resp.StatusCode = status
			return resp, nil
		})
		if err := c.DefineService(t.Context(), Service{Name: "s"}); err == nil {
			t.Errorf("status %d with %s is taken", status, text)
		}
	}
}
