// Package setting declares tunables: name, default, bounds and meaning, once.
//
// A package with tunables declares them beside its Config, in a method Settings
// that binds each to its field, and applies their defaults from there. Package
// config collects the declarations that have a name: environment, flags, help and
// documentation are made from them.
package setting

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// prefix starts the name of each environment variable.
const prefix = "BACKPLANE_"

// Setting is the declaration of one tunable, bound to the field that it sets.
type Setting struct {
	Name    string // of the environment variable, without the prefix; empty if operators cannot set it
	Default string // as an operator would write it; empty for none
	Meaning string // one line for operators, with code in backquotes
	Secret  bool   // its value is not shown

	// Parse sets the field. Its error continues the sentence "BACKPLANE_X is …, but
	// it must be".
	Parse func(text string) error

	applyDefault func() error
}

// Variable returns the name of the environment variable.
func (s Setting) Variable() string { return prefix + s.Name }

// Flag returns the name of the flag, without dashes in front.
func (s Setting) Flag() string { return strings.ReplaceAll(strings.ToLower(s.Name), "_", "-") }

// Describe returns the meaning of the setting with its default.
func (s Setting) Describe() string {
	if s.Default == "" {
		return s.Meaning
	}
	return s.Meaning + " (default `" + s.Default + "`)"
}

// ApplyDefaults gives each field that is zero its default. A negative value is an
// error, which names the tunables as what.
func ApplyDefaults(what string, settings []Setting) error {
	for _, s := range settings {
		if s.applyDefault == nil {
			continue
		}
		if err := s.applyDefault(); err != nil {
			return fmt.Errorf("%s: %w", what, err)
		}
	}
	return nil
}

// Value declares a setting that parse reads.
func Value[T any](field *T, name, fallback, meaning string, parse func(string) (T, error)) Setting {
	return Setting{Name: name, Default: fallback, Meaning: meaning, Parse: func(text string) error {
		v, err := parse(text)
		if err == nil {
			*field = v
		}
		return err
	}}
}

// MaxCount keeps sums of limits far from overflow on every platform.
const MaxCount = 1 << 30

// Number declares a whole number within bounds.
func Number[T int | int64](field *T, name string, fallback, low, high T, meaning string) Setting {
	s := Value(field, name, strconv.FormatInt(int64(fallback), 10), meaning, func(text string) (T, error) {
		n, err := strconv.ParseInt(text, 10, 64)
		if err != nil || n < int64(low) || n > int64(high) {
			return 0, fmt.Errorf("a whole number from %d to %d", low, high)
		}
		return T(n), nil
	})
	s.applyDefault = defaultOf(field, name, fallback)
	return s
}

// Count declares a limit on a number of things: from 1 to MaxCount.
func Count[T int | int64](field *T, name string, fallback T, meaning string) Setting {
	return Number(field, name, fallback, 1, MaxCount, meaning)
}

// Duration declares a limit on time: from a millisecond to an hour.
func Duration(field *time.Duration, name string, fallback time.Duration, meaning string) Setting {
	s := Value(field, name, formatDuration(fallback), meaning, func(text string) (time.Duration, error) {
		d, err := time.ParseDuration(text)
		if err != nil || d < time.Millisecond || d > time.Hour {
			return 0, errors.New("a time from 1ms to 1h, such as 500ms, 10s or 2m")
		}
		return d, nil
	})
	s.applyDefault = defaultOf(field, name, fallback)
	return s
}

// longestAge bounds ages: 20 years.
const longestAge = 20 * 366 * 24 * time.Hour

// Age declares for how long something lives: from a second to 20 years, or zero,
// its default, for ever.
func Age(field *time.Duration, name, meaning string) Setting {
	s := Value(field, name, "0s", meaning, func(text string) (time.Duration, error) {
		d, err := time.ParseDuration(text)
		if err != nil || d != 0 && d < time.Second || d > longestAge {
			return 0, errors.New("a time from 1s to 175680h (20 years), such as 720h, or 0s for ever")
		}
		return d, nil
	})
	s.applyDefault = defaultOf(field, name, 0)
	return s
}

// Period declares for how long something is kept that is never kept for ever: from an hour to 20 years.
func Period(field *time.Duration, name string, fallback time.Duration, meaning string) Setting {
	s := Value(field, name, formatDuration(fallback), meaning, func(text string) (time.Duration, error) {
		d, err := time.ParseDuration(text)
		if err != nil || d < time.Hour || d > longestAge {
			return 0, errors.New("a time from 1h to 175680h (20 years), such as 720h")
		}
		return d, nil
	})
	s.applyDefault = defaultOf(field, name, fallback)
	return s
}

// Internal declares a tunable that operators cannot set.
func Internal[T int | int64 | float64 | time.Duration](field *T, fallback T, meaning string) Setting {
	return Setting{Default: fmt.Sprint(fallback), Meaning: meaning, applyDefault: defaultOf(field, meaning, fallback)}
}

func defaultOf[T int | int64 | float64 | time.Duration](field *T, name string, fallback T) func() error {
	return func() error {
		if *field < 0 {
			return fmt.Errorf("%s must not be negative, but is %v", name, *field)
		}
		if *field == 0 {
			*field = fallback
		}
		return nil
	}
}

// formatDuration writes 2m rather than 2m0s.
func formatDuration(d time.Duration) string {
	text := d.String()
	if strings.HasSuffix(text, "m0s") {
		text = strings.TrimSuffix(text, "0s")
	}
	if strings.HasSuffix(text, "h0m") {
		text = strings.TrimSuffix(text, "0m")
	}
	return text
}
