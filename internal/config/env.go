package config

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/agnivade/levenshtein"

	"github.com/backplane-dev/backplane/internal/setting"
)

// testPrefix starts the variables of the tests, which are no settings.
const testPrefix = prefix + "TEST_"

// prefix starts the name of each environment variable.
const prefix = "BACKPLANE_"

// kubernetes matches the variables that Kubernetes gives to every pod for a
// service whose name starts with backplane.
var kubernetes = regexp.MustCompile(`(_SERVICE_HOST|_SERVICE_PORT(_[A-Z0-9_]+)?|_PORT(_[0-9]+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)?)$`)

// Mistakes is an error: everything that is wrong with a configuration, one
// sentence each.
type Mistakes []string

// Error lists the mistakes, each on a line of its own.
func (m Mistakes) Error() string {
	return "the configuration is wrong:\n  " + strings.Join(m, "\n  ")
}

// FromEnv reads the configuration from the environment (NAME=value, as
// os.Environ returns it) and from flags, by the names of Setting.Flag. An empty
// variable counts as not set. If anything is wrong it returns Mistakes.
func FromEnv(environ []string, flags map[string]string) (Config, error) {
	var c Config
	var mistakes Mistakes
	env := collectVariables(environ)
	mistakes = append(mistakes, findUnknown(env)...)
	for _, s := range c.settings() {
		if mistake := readSetting(s, env, flags); mistake != "" {
			mistakes = append(mistakes, mistake)
		}
	}
	mistakes = append(mistakes, c.findContradictions()...)
	if len(mistakes) > 0 {
		return Config{}, mistakes
	}
	return c, nil
}

// APIKeyVariable holds the API key of commands that call a server. It is no setting, and may be set for other
// commands, too; nor is it a flag, since others can read those of a process.
const APIKeyVariable = prefix + "API_KEY"

// collectVariables returns those of our variables that are set.
func collectVariables(environ []string) map[string]string {
	env := map[string]string{}
	for _, e := range environ {
		name, value, _ := strings.Cut(e, "=")
		if strings.HasPrefix(name, prefix) && !strings.HasPrefix(name, testPrefix) && name != APIKeyVariable && value != "" {
			env[name] = value
		}
	}
	return env
}

// findUnknown finds variables with our prefix that are no settings: a misspelt setting
// would otherwise have no effect unnoticed.
func findUnknown(env map[string]string) (mistakes []string) {
	for name := range env {
		known := func(s setting.Setting) bool { return s.Variable() == name }
		if all := Settings(); !slices.ContainsFunc(all, known) && !kubernetes.MatchString(name) {
			like := slices.MinFunc(all, func(a, b setting.Setting) int { return editDistance(a, name) - editDistance(b, name) })
			mistakes = append(mistakes, fmt.Sprintf("%s is set, but there is no such setting; the most like it is %s.", name, like.Variable()))
		}
	}
	slices.Sort(mistakes)
	return mistakes
}

func editDistance(s setting.Setting, name string) int {
	return levenshtein.ComputeDistance(s.Variable(), name)
}

// readSetting sets the field of the setting from its flag, its variable or its default. It
// returns a sentence if the value is wrong.
func readSetting(s setting.Setting, env, flags map[string]string) (mistake string) {
	source, value := s.Variable(), env[s.Variable()]
	if v, ok := flags[s.Flag()]; ok {
		source, value = "--"+s.Flag(), v
	}
	if value == "" {
		value = s.Default
	}
	if value == "" {
		return ""
	}
	err := s.Parse(value)
	switch {
	case err == nil:
		return ""
	case s.Secret:
		return fmt.Sprintf("%s is not usable (its value is not shown): it must be %v.", source, err)
	default:
		return fmt.Sprintf("%s is %q, but it must be %v.", source, value, err)
	}
}

// findContradictions finds settings that are valid alone and wrong together.
func (c Config) findContradictions() (mistakes []string) {
	if (c.AdminUsername == "") != (c.AdminPassword == "") {
		mistakes = append(mistakes, "BACKPLANE_ADMIN_USERNAME and BACKPLANE_ADMIN_PASSWORD must be set together, or neither of them.")
	}
	return mistakes
}
