package export

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/redis/go-redis/v9"

	"github.com/backplane-dev/backplane/internal/event"
)

// RedisSinkConfig says where in Redis events go.
type RedisSinkConfig struct {
	Source string // of the events
	Stream string // key of the stream, which must have no other writer
	MaxLen int64  // entries to keep, about; 0 keeps all
}

// RedisSink appends events to a Redis stream, a field for each attribute and one
// for the data.
//
// The id of an entry is <generation>-<position>. Redis takes only ids that are
// higher than all before, so it refuses by itself what was appended already, and
// the stream has each event once. The generation is 1, and one more whenever the
// stream's last entry is of another timeline: a restored log begins lower. What
// is sent together is one transaction, of which Redis takes all or nothing.
type RedisSink struct {
	opts *redis.Options
	cfg  RedisSinkConfig

	client *redis.Client // nil while there is none
	end    streamEnd     // as last read; zero if it must be read

	exported bool           // to the stream, which therefore must be there
	last     event.Position // that was exported, of the log's timeline then
}

var _ Sink = (*RedisSink)(nil)

// ResumeExport implements export.Resumer.
func (s *RedisSink) ResumeExport(last event.Position) { s.exported, s.last = true, last }

// streamEnd is the end of the stream.
type streamEnd struct {
	generation uint64
	timeline   string
	position   event.Position // 0 if the stream has no event of the timeline
}

// NewRedisSink returns a sink that connects when it is used.
func NewRedisSink(url string, cfg RedisSinkConfig) (*RedisSink, error) {
	opts, err := redis.ParseURL(url)
	if err != nil {
		return nil, errURL("redis://user:password@host:6379/0")
	}
	opts.DialTimeout, opts.WriteTimeout, opts.ReadTimeout = connectTimeout, connectTimeout, confirmTimeout
	opts.MaxRetries = -1 // the exporter retries
	opts.DialerRetries, opts.PoolSize = 1, 1
	return &RedisSink{opts: opts, cfg: cfg}, nil
}

// Close implements export.Sink.
func (s *RedisSink) Close() error {
	if s.client == nil {
		return nil
	}
	client := s.client
	s.client, s.end = nil, streamEnd{}
	return ignoreClosed(client.Close())
}

func ignoreClosed(err error) error {
	if errors.Is(err, redis.ErrClosed) {
		return nil
	}
	return err
}

// Send implements export.Sink.
func (s *RedisSink) Send(ctx context.Context, events []*event.Event) (int, error) {
	if s.client == nil {
		s.client = redis.NewClient(s.opts)
	}
	client := s.client
	stop := context.AfterFunc(ctx, func() { _ = client.Close() }) // a read does not end by itself
	defer stop()
	if err := s.appendBatch(ctx, events); err != nil {
		return 0, errors.Join(fmt.Errorf("append to the Redis stream %s: %w", s.cfg.Stream, err), s.Close())
	}
	s.exported, s.last = true, events[len(events)-1].Cursor.Position
	return len(events), nil
}

func (s *RedisSink) appendBatch(ctx context.Context, events []*event.Event) error {
	if timeline := events[0].Cursor.Timeline; s.end.timeline != timeline {
		if err := s.findGeneration(ctx, timeline); err != nil {
			return err
		}
	}
	if err := s.verifySame(ctx, events); err != nil {
		return err
	}
	added, err := s.appendEvents(ctx, events)
	if err != nil || added == len(events) {
		return err
	}
	return s.verifyAppended(ctx, events[len(events)-1])
}

// findGeneration finds the generation to continue with in a timeline.
func (s *RedisSink) findGeneration(ctx context.Context, timeline string) error {
	if kind, err := s.client.Type(ctx, s.cfg.Stream).Result(); err != nil {
		return err
	} else if kind == "none" && s.exported {
		return ErrTargetGone
	} else if kind != "stream" && kind != "none" {
		return fmt.Errorf("the key holds a %s; name another with ?stream=", kind)
	}
	id, of, err := s.readLastEntry(ctx)
	if err != nil {
		return err
	}
	if s.exported && of == timeline && id.position < s.last {
		return fmt.Errorf("it ends at position %d, and events up to %d were exported: Redis has lost its end; backplane sinks forget and a restart export what is missing: %w", id.position, s.last, ErrTargetGone)
	}
	s.end = streamEnd{generation: id.generation, timeline: timeline, position: id.position}
	if of != timeline {
		s.end = streamEnd{generation: id.generation + 1, timeline: timeline}
	}
	return nil
}

// verifySame makes sure that the stream has the events where it has their positions, by the last of them that
// is not behind its end, if that entry is still there. Another event there is of a future that the log has lost.
func (s *RedisSink) verifySame(ctx context.Context, events []*event.Event) error {
	e := lastUpTo(events, s.end.position)
	if e == nil {
		return nil
	}
	id := fmt.Sprintf("%d-%d", s.end.generation, e.Cursor.Position)
	entries, err := s.client.XRange(ctx, s.cfg.Stream, id, id).Result()
	if err != nil {
		return err
	}
	if len(entries) > 0 && entries[0].Values["id"] != string(e.ID) {
		return errRestored(e.Cursor.Position)
	}
	return nil
}

// streamID is the id of an entry.
type streamID struct {
	generation uint64
	position   event.Position
}

// readLastEntry returns the id of the stream's last entry and its timeline. If the stream
// is empty the id is the highest that it ever had, of no timeline.
func (s *RedisSink) readLastEntry(ctx context.Context) (id streamID, timeline string, err error) {
	entries, err := s.client.XRevRangeN(ctx, s.cfg.Stream, "+", "-", 1).Result()
	if err != nil {
		return id, "", err
	}
	var text string
	if len(entries) > 0 {
		text = entries[0].ID
		timeline, _ = entries[0].Values["timeline"].(string)
		if timeline == "" {
			return id, "", errors.New("it holds entries of another writer; name another with ?stream=")
		}
	} else {
		info, err := s.client.XInfoStream(ctx, s.cfg.Stream).Result()
		switch {
		case err != nil && strings.Contains(err.Error(), "no such key"):
			return id, "", nil
		case err != nil:
			return id, "", err
		}
		text = info.LastGeneratedID
	}
	generation, position, _ := strings.Cut(text, "-")
	g, err1 := strconv.ParseUint(generation, 10, 64)
	p, err2 := strconv.ParseUint(position, 10, 63)
	if err := errors.Join(err1, err2); err != nil {
		return id, "", fmt.Errorf("its last id is %q: %w", text, err)
	}
	return streamID{g, event.Position(p)}, timeline, nil
}

// appendEvents appends the events in one transaction and returns how many were new.
func (s *RedisSink) appendEvents(ctx context.Context, events []*event.Event) (added int, err error) {
	cmds, err := s.client.TxPipelined(ctx, func(p redis.Pipeliner) error {
		for _, e := range events {
			p.XAdd(ctx, s.encodeEntry(e))
		}
		return nil
	})
	for _, cmd := range cmds {
		switch cmdErr := cmd.Err(); {
		case cmdErr == nil:
			added++
		case errors.Is(cmdErr, redis.Nil): // NOMKSTREAM
			return 0, ErrTargetGone
		case !isStale(cmdErr):
			return 0, cmdErr
		}
	}
	if err != nil && !isStale(err) {
		return 0, err
	}
	return added, nil
}

// isStale reports whether Redis refused an id because the stream is beyond it.
func isStale(err error) bool {
	return strings.Contains(err.Error(), "equal or smaller than the target stream top item")
}

func (s *RedisSink) encodeEntry(e *event.Event) *redis.XAddArgs {
	c := newCloudEvent(e, s.cfg.Source)
	attributes := c.attributes()
	values := make([]any, 0, 2*len(attributes)+2)
	for _, a := range attributes {
		values = append(values, a.name, a.value)
	}
	return &redis.XAddArgs{
		Stream: s.cfg.Stream, NoMkStream: s.exported, MaxLen: s.cfg.MaxLen, Approx: s.cfg.MaxLen > 0,
		ID:     fmt.Sprintf("%d-%d", s.end.generation, e.Cursor.Position),
		Values: append(values, "data", []byte(c.Data)),
	}
}

// verifyAppended makes sure that what Redis refused is there already.
func (s *RedisSink) verifyAppended(ctx context.Context, e *event.Event) error {
	id, timeline, err := s.readLastEntry(ctx)
	if err != nil {
		return err
	}
	if timeline != e.Cursor.Timeline || id.generation != s.end.generation || id.position < e.Cursor.Position {
		return fmt.Errorf("it ends with %d-%d of timeline %q, which this sink has not written", id.generation, id.position, timeline)
	}
	return nil
}
