package event

import (
	"testing"
	"time"
)

func TestRecorder_gives_what_it_was_told_once(t *testing.T) {
	t.Parallel()
	var r Recorder
	at := time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC)
	r.Record("order.placed", "ord_1", 1, struct {
		Total string `json:"total"`
	}{"1.00"}, at, "usr_1")
	evs := r.Take()
	if len(evs) != 1 || evs[0].Type != "order.placed" || evs[0].SubjectVersion != 1 || evs[0].Related[0] != "usr_1" ||
		string(evs[0].Data) != `{"total":"1.00"}` || !evs[0].OccurredAt.Equal(at) {
		t.Errorf("Take gave %+v", evs)
	}
	if again := r.Take(); len(again) != 0 {
		t.Errorf("the second Take gave %+v, want nothing", again)
	}
}
