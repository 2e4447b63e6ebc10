package export

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strconv"
	"time"

	"github.com/backplane-dev/backplane/internal/event"
)

// Constant attributes of the events. docs/sinks.md documents them for readers of a sink.
const (
	specVersion     = "1.0"
	jsonType        = "application/json"
	structuredType  = "application/cloudevents+json"
	cloudEventsApp  = "backplane"
	cloudEventsTime = time.RFC3339Nano
)

// cloudEvent is an event in the format of CloudEvents 1.0, with our extension attributes
// after datacontenttype. A position may have more digits than an integer of
// CloudEvents, so it is text.
type cloudEvent struct {
	SpecVersion     string `json:"specversion"`
	ID              string `json:"id"`
	Source          string `json:"source"`
	Type            string `json:"type"`
	Subject         string `json:"subject"`
	Time            string `json:"time"`
	DataContentType string `json:"datacontenttype"`

	Cursor         string `json:"cursor"`
	Timeline       string `json:"timeline"`
	Position       string `json:"position"`
	SubjectVersion int    `json:"subjectversion"`
	Actor          string `json:"actor,omitempty"`

	Data json.RawMessage `json:"data"`
}

func newCloudEvent(e *event.Event, source string) cloudEvent {
	return cloudEvent{
		SpecVersion: specVersion, ID: string(e.ID), Source: source, Type: string(e.Type), Subject: e.SubjectID,
		Time: e.OccurredAt.UTC().Format(cloudEventsTime), DataContentType: jsonType,
		Cursor: e.Cursor.String(), Timeline: e.Cursor.Timeline, Position: strconv.FormatInt(int64(e.Cursor.Position), 10),
		SubjectVersion: e.SubjectVersion, Actor: e.Actor, Data: e.Data,
	}
}

// attribute is a name and its value as text.
type attribute struct{ name, value string }

// attributes returns all but the data, for binary mode.
func (c *cloudEvent) attributes() []attribute {
	all := []attribute{
		{"specversion", c.SpecVersion},
		{"id", c.ID},
		{"source", c.Source},
		{"type", c.Type},
		{"subject", c.Subject},
		{"time", c.Time},
		{"datacontenttype", c.DataContentType},
		{"cursor", c.Cursor},
		{"timeline", c.Timeline},
		{"position", c.Position},
		{"subjectversion", strconv.Itoa(c.SubjectVersion)},
	}
	if c.Actor != "" { // an attribute without a value is left out
		all = append(all, attribute{"actor", c.Actor})
	}
	return all
}

// encodeStructured returns the event as one JSON object.
func (c *cloudEvent) encodeStructured() ([]byte, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(c); err != nil {
		return nil, fmt.Errorf("encode event %s: %w", c.ID, err)
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), nil
}
