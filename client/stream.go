package client

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"
)

// maxBlock bounds a line of an event stream, in bytes: an instance with all the
// metadata that it may have is about a tenth of it.
const maxBlock = 1 << 20

// stream is a subscription by server-sent events. It is for one goroutine.
type stream struct {
	resp    *http.Response
	lines   *bufio.Scanner
	cancel  context.CancelCauseFunc
	ctx     context.Context
	silence time.Duration
	watch   *time.Timer // closes an idle stream
}

// Reasons for which a stream ends.
var (
	errIdleTimeout = errors.New("the stream of the registry was idle for too long")
	errTooLong     = fmt.Errorf("an event has more than %d bytes", maxBlock)
	errEnded       = errors.New("the registry ended the stream")
)

// subscribe opens a subscription at a node, after the cursor. Close must be called.
func (c *Client) subscribe(ctx context.Context, node int, text string, vars map[string]any, after string) (*stream, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	watch := time.AfterFunc(c.cfg.Timeout, func() { cancel(errIdleTimeout) })
	resp, err := c.post(ctx, node, text, vars, "text/event-stream", after)
	if err == nil && (resp.StatusCode != http.StatusOK || !isEventStream(resp)) {
		err = streamError(resp)
	}
	if err != nil {
		watch.Stop()
		defer cancel(nil)
		if cause := context.Cause(ctx); cause != nil {
			return nil, cause
		}
		return nil, err
	}
	watch.Reset(c.cfg.Silence)
	s := &stream{resp: resp, lines: bufio.NewScanner(resp.Body), cancel: cancel, ctx: ctx, silence: c.cfg.Silence, watch: watch}
	s.lines.Buffer(make([]byte, 0, 4<<10), maxBlock)
	return s, nil
}

// streamError is the error that a node answered with instead of a stream.
func streamError(resp *http.Response) error {
	defer resp.Body.Close()
	a, err := readAnswer(resp)
	if err != nil {
		return err
	}
	if err := a.err(); err != nil {
		return err
	}
	return errors.New("the registry answered without a stream")
}

// streamMessage is an event, or only a cursor, or only a keep-alive.
type streamMessage struct {
	cursor string
	data   json.RawMessage // of the field; nil if there is no event
}

// next returns the next block. An *Error says why the registry refused the
// subscription; any other, that the stream is over.
func (s *stream) next(field string) (streamMessage, error) {
	var name, id, data string
	for s.lines.Scan() {
		s.watch.Reset(s.silence)
		key, value, _ := strings.Cut(s.lines.Text(), ":")
		value = strings.TrimPrefix(value, " ")
		switch key {
		case "event":
			name = value
		case "id":
			id = value
		case "data":
			data = value // ours have one line
		case "": // the end of a block, or a comment
			if s.lines.Text() != "" {
				continue
			}
			if name == "complete" {
				return streamMessage{}, errEnded
			}
			return parseMessage(field, id, data)
		}
	}
	return streamMessage{}, s.readError()
}

func parseMessage(field, id, data string) (streamMessage, error) {
	if data == "" {
		return streamMessage{cursor: id}, nil
	}
	var a answer
	if err := json.Unmarshal([]byte(data), &a); err != nil {
		return streamMessage{}, fmt.Errorf("read an event: %w", err)
	}
	if err := a.err(); err != nil {
		return streamMessage{}, err
	}
	return streamMessage{id, a.Data[field]}, nil
}

// readError returns why the stream ended.
func (s *stream) readError() error {
	switch cause := context.Cause(s.ctx); {
	case cause != nil:
		return cause
	case errors.Is(s.lines.Err(), bufio.ErrTooLong):
		return errTooLong
	case s.lines.Err() != nil:
		return s.lines.Err()
	default:
		return errEnded
	}
}

// close ends the stream; it may be called twice.
func (s *stream) close() {
	s.watch.Stop()
	s.cancel(nil)
	_ = s.resp.Body.Close() // nothing is expected of it any more
}
