package config

import "github.com/backplane-dev/backplane/internal/setting"

// Source is where the value of a setting comes from.
type Source string

// The sources; each wins over those before it.
const (
	FromDefault     Source = "default"
	FromEnvironment Source = "environment"
	FromFlag        Source = "flag"
)

// InForce is a setting with the value that is in force.
type InForce struct {
	setting.Setting

	Value  string // as an operator would write it, without what is secret; empty for none
	Source Source
}

// SettingsInForce returns every setting that FromEnv reads from the environment and flags.
func SettingsInForce(environ []string, flags map[string]string) []InForce {
	env := collectVariables(environ)
	var all []InForce
	for _, s := range Settings() {
		v := InForce{Setting: s, Value: env[s.Variable()], Source: FromEnvironment}
		if text, ok := flags[s.Flag()]; ok {
			v.Value, v.Source = text, FromFlag
		}
		if v.Value == "" { // which counts as not set
			v.Value, v.Source = s.Default, FromDefault
		}
		v.Value = redact(s, v.Value)
		all = append(all, v)
	}
	return all
}

// redact returns the value of a setting without what is secret.
func redact(s setting.Setting, value string) string {
	switch {
	case !s.Secret || value == "":
		return value
	case s.Name == "DATABASE_URL":
		return Database(value).String()
	default:
		return hidden
	}
}
