package setting_test

import (
	"testing"
	"time"

	"github.com/backplane-dev/backplane/internal/setting"
)

type limits struct {
	size, buffer int
	wait         time.Duration
	life         time.Duration
}

func (l *limits) settings() []setting.Setting {
	return []setting.Setting{
		setting.Count(&l.size, "LIMIT_SIZE", 10, "things at once"),
		setting.Duration(&l.wait, "LIMIT_WAIT", 2*time.Minute, "longest wait"),
		setting.Age(&l.life, "LIFE", "lifetime"),
		setting.Internal(&l.buffer, 5, "bytes of the buffer"),
	}
}

func TestApplyDefaults_fills_zero_values_only(t *testing.T) {
	t.Parallel()
	l := limits{size: 3}
	if err := setting.ApplyDefaults("limits", l.settings()); err != nil {
		t.Fatal(err)
	}
	if want := (limits{size: 3, buffer: 5, wait: 2 * time.Minute}); l != want {
		t.Errorf("limits = %+v, want %+v", l, want)
	}
}

func TestApplyDefaults_names_a_negative_value(t *testing.T) {
	t.Parallel()
	for want, l := range map[string]limits{
		"limits: LIMIT_WAIT must not be negative, but is -1s":         {wait: -time.Second},
		"limits: bytes of the buffer must not be negative, but is -1": {buffer: -1},
	} {
		if err := setting.ApplyDefaults("limits", l.settings()); err == nil || err.Error() != want {
			t.Errorf("ApplyDefaults = %v, want %q", err, want)
		}
	}
}

func TestSetting_Parse(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		setting int
		text    string
		want    string // of the error, empty for none
	}{
		{0, "1", ""},
		{0, "0", "a whole number from 1 to 1073741824"},
		{0, "99999999999999999999", "a whole number from 1 to 1073741824"},
		{1, "1h", ""},
		{1, "2h", "a time from 1ms to 1h, such as 500ms, 10s or 2m"},
		{2, "0s", ""},
		{2, "1ms", "a time from 1s to 175680h (20 years), such as 720h, or 0s for ever"},
	} {
		got := ""
		if err := new(limits).settings()[tt.setting].Parse(tt.text); err != nil {
			got = err.Error()
		}
		if got != tt.want {
			t.Errorf("Parse(%q) = %q, want %q", tt.text, got, tt.want)
		}
	}
}

func TestSetting_Describe(t *testing.T) {
	t.Parallel()
	s := new(limits).settings()[1]
	if got, want := s.Variable()+" --"+s.Flag()+" "+s.Describe(), "BACKPLANE_LIMIT_WAIT --limit-wait longest wait (default `2m`)"; got != want {
		t.Errorf("the setting is %q, want %q", got, want)
	}
}
