package cli

import (
	"context"
	"fmt"
	"log/slog"
	"net/url"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/backplane-dev/backplane/client"
	"github.com/backplane-dev/backplane/internal/config"
	"github.com/backplane-dev/backplane/internal/logwriter"
	"github.com/backplane-dev/backplane/internal/sidecar"
)

// exitError has the program end with an exit code, and says nothing.
type exitError struct{ code int }

func (e exitError) Error() string { return fmt.Sprintf("exit code %d", e.code) }

// registerFlags are the flags of the command register.
type registerFlags struct {
	servers  []string
	check    string
	stopTime time.Duration
	instance client.Registration
}

func (c *commandLine) registerCommand() *cobra.Command {
	var f registerFlags
	cmd := &cobra.Command{
		Use:   "register --service NAME --url URL [--check PATH] [flags] -- PROGRAM [ARGUMENT…]",
		Short: "run a program as an instance of a service",
		Long: "Starts the program, registers it as an instance of the service once it answers GET of PATH with a status below 400, and renews its lease. " +
			"A service that does not exist is created with this health check. SIGTERM and SIGINT drain the instance and remove it, and then end the program with SIGTERM; SIGHUP is passed on to the program. " +
			"The exit code is that of the program.\n\n" +
			"The API key is read from " + config.APIKeyVariable + ", which the program does not get; it needs the scope service:NAME. While no server can be reached, " +
			"the program runs, and registering is tried again.",
		Example:     "  " + config.APIKeyVariable + "=$(cat till.key) backplane register --service till --url http://127.0.0.1:9000 --check /healthz -- ./my-service",
		Annotations: withoutSettings,
		Args:        cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if cmd.ArgsLenAtDash() != 0 {
				return usagef("register: the program stands behind --; see backplane register --help")
			}
			return c.registerProgram(cmd.Context(), f, args)
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&f.instance.Service, "service", "", "name of the service")
	flags.StringVar(&f.instance.URL, "url", "", "where callers reach this instance")
	flags.StringVar(&f.check, "check", "", "path of the health check behind the URL")
	flags.StringVar(&f.instance.Instance, "instance", "", "id of the instance, the same after a restart (default host name and port)")
	flags.StringSliceVar(&f.servers, "server", []string{"http://127.0.0.1:8080"}, "URLs of Backplane's nodes")
	flags.IntVar(&f.instance.Weight, "weight", 1, "share of the calls")
	flags.StringToStringVar(&f.instance.Metadata, "metadata", nil, "what callers are shown, as name=value")
	flags.DurationVar(&f.instance.TTL, "ttl", 30*time.Second, "time to live of the lease")
	flags.DurationVar(&f.instance.Drain, "drain-time", time.Second, "time that callers get to see that the instance drains")
	flags.DurationVar(&f.stopTime, "stop-time", 30*time.Second, "time that the program gets to end after SIGTERM")
	for _, name := range []string{"service", "url"} {
		_ = cmd.MarkFlagRequired(name) // fails only for unknown flags
	}
	return cmd
}

func (c *commandLine) registerProgram(ctx context.Context, f registerFlags, command []string) error {
	key, environ := takeVariable(c.process.Environ, config.APIKeyVariable)
	if key == "" {
		return usagef("register: %s must hold an API key with the scope service:%s; make one with backplane apikey", config.APIKeyVariable, f.instance.Service)
	}
	if f.check != "" && !strings.HasPrefix(f.check, "/") {
		return usagef("register: --check must begin with a slash, not %q", f.check)
	}
	instance, err := defaultInstance(f.instance)
	if err != nil {
		return err
	}
	absorbBrokenPipes()
	errOut := logwriter.New(c.process.ErrOut, logwriter.DefaultLimit, droppedNotice(config.Config{})) // neither may a reader that is stuck hold up renewals
	defer errOut.Close(flushTime)
	log := slog.New(slog.NewTextHandler(errOut, nil))
	registry, err := client.New(client.Config{URLs: f.servers, Token: key, Logger: log})
	if err != nil {
		return err
	}
	code, err := sidecar.Run(ctx, sidecar.Config{
		Command: command, Environ: environ, Registry: registry, Instance: instance, Check: f.check, StopTime: f.stopTime, Log: log,
	})
	if err == nil && code != 0 {
		return exitError{code}
	}
	return err
}

// defaultInstance sets a missing id to the host's name and the port of the URL.
func defaultInstance(r client.Registration) (client.Registration, error) {
	u, err := url.Parse(r.URL)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		return r, usagef("register: --url must be http or https with a host, not %q", r.URL)
	}
	if r.Instance == "" {
		host, err := os.Hostname()
		if err != nil {
			return r, fmt.Errorf("register: the host has no name, so give the instance an id by --instance: %w", err)
		}
		r.Instance = strings.TrimSuffix(host+"-"+u.Port(), "-")
	}
	return r, nil
}

// takeVariable returns the value of an environment variable, and the others.
func takeVariable(environ []string, name string) (value string, others []string) {
	others = slices.DeleteFunc(slices.Clone(environ), func(line string) bool {
		v, found := strings.CutPrefix(line, name+"=")
		if found {
			value = v
		}
		return found
	})
	return value, others
}
