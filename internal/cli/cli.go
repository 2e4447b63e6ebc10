// Package cli is the command line of backplane: one file a command, on cobra.
//
// Every setting of package config is a flag of every command. A command runs with
// the checked configuration; wrong settings, flags and arguments are reported
// together, before anything is done. Without a command the default is serve.
package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"

	"github.com/spf13/cobra"

	"github.com/backplane-dev/backplane/internal/app"
	"github.com/backplane-dev/backplane/internal/config"
	"github.com/backplane-dev/backplane/internal/logwriter"
	"github.com/backplane-dev/backplane/internal/requestlog"
)

// Process is what the operating system gives the program.
type Process struct {
	Args        []string  // without the program's name
	Environ     []string  // NAME=value, as os.Environ returns it
	In          io.Reader // nil for none
	Out, ErrOut io.Writer
}

// Serve runs a server until ctx is cancelled and the last request is answered.
type Serve func(ctx context.Context, env app.Env, opts ServeOptions) error

// Run runs the command that the arguments name, until it is done or ctx is
// cancelled. Mistakes in settings, flags and arguments are errors.
func Run(ctx context.Context, p Process, serve Serve) error {
	c := &commandLine{process: p, serve: serve, settings: map[string]string{}}
	root := c.rootCommand()
	root.SetArgs(normalizeArgs(root, p.Args))
	return root.ExecuteContext(ctx)
}

// Main is Run for a process: it prints the error and returns the exit code, which is that of the program that the
// command register runs.
func Main(ctx context.Context, p Process, serve Serve) int {
	err := Run(ctx, p, serve)
	if err == nil {
		return exitOK
	}
	if exit, ok := errors.AsType[exitError](err); ok {
		return exit.code
	}
	w := logwriter.New(p.ErrOut, logwriter.DefaultLimit, nil) // its reader may be stuck
	fmt.Fprintln(w, "backplane:", err)
	w.Close(flushTime)
	return exitCode(err)
}

// commandLine is one run of the program.
type commandLine struct {
	process  Process
	serve    Serve
	settings map[string]string // given as flags, by flag name
	json     bool              // whether the listing of the command is JSON
}

// rootCommand returns the tree of all commands.
func (c *commandLine) rootCommand() *cobra.Command {
	root := &cobra.Command{
		Use:           "backplane",
		Short:         "a GraphQL API server for users, orders and services",
		SilenceErrors: true, // main prints the error
		SilenceUsage:  true,
		Args:          unknownCommand,
		RunE:          func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	root.AddCommand(
		c.serveCommand(), c.migrateCommand(), c.seedCommand(), c.usersCommand(), c.apiKeyCommand(), c.keysCommand(), c.servicesCommand(), c.pickCommand(), c.registerCommand(),
		c.consumersCommand(), c.deadLettersCommand(), c.sinksCommand(), c.legacyCommand(), c.securityCommand(), c.doctorCommand(), c.configCommand(), c.versionCommand(), c.manCommand(),
	)
	root.SetOut(c.process.Out)
	root.SetErr(c.process.ErrOut)
	root.SetFlagErrorFunc(c.flagError)
	root.SetHelpFunc(printHelp)
	c.addSettings(root.PersistentFlags())
	root.InitDefaultHelpCmd()
	root.InitDefaultCompletionCmd()
	for _, cmd := range root.Commands() { // those that cobra has added
		switch cmd.Name() {
		case "help":
			cmd.Short = "print the help of a command"
		case "completion":
			cmd.Short, cmd.Annotations = "print a completion script for bash, zsh, fish or powershell", withoutSettings
		}
	}
	return root
}

// unknownCommand refuses arguments of the root, which are misspelt commands.
func unknownCommand(cmd *cobra.Command, args []string) error {
	if len(args) == 0 {
		return nil
	}
	hint := "see backplane help"
	if like := cmd.SuggestionsFor(args[0]); len(like) > 0 {
		hint = "did you mean " + strings.Join(like, " or ") + "?"
	}
	return usagef("there is no command %q; %s", args[0], hint)
}

// atMost accepts up to n arguments.
func atMost(n int) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) <= n {
			return nil
		}
		return usagef("%s takes no argument %q; see %s --help", cmd.Name(), args[n], cmd.CommandPath())
	}
}

// flagError reports a mistake in the flags together with those in the settings.
func (c *commandLine) flagError(_ *cobra.Command, err error) error {
	mistakes := config.Mistakes{"The arguments are wrong: " + err.Error() + "."}
	_, settingsErr := config.FromEnv(c.process.Environ, c.settings)
	if more, ok := errors.AsType[config.Mistakes](settingsErr); ok {
		mistakes = append(mistakes, more...)
	}
	return mistakes
}

// withEnv is the RunE of a command that needs the configuration only.
func (c *commandLine) withEnv(work func(ctx context.Context, env app.Env, args []string) error) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, args []string) error {
		cfg, err := config.FromEnv(c.process.Environ, c.settings)
		if err != nil {
			return err
		}
		return work(cmd.Context(), app.Env{Version: programVersion(), Config: cfg, Log: newLogger(cfg, c.process.ErrOut), Out: c.process.Out}, args)
	}
}

// toolboxWork is the work of a command on the database, which needs no server.
type toolboxWork func(ctx context.Context, env app.Env, tools *app.Toolbox, args []string) error

// withToolbox is the RunE of a command that reads the database. It makes no file and runs no
// migration.
func (c *commandLine) withToolbox(work toolboxWork) func(*cobra.Command, []string) error {
	return c.withOpenToolbox(app.OpenToolbox, work)
}

// withWritableToolbox is the RunE of a command that writes to the database.
func (c *commandLine) withWritableToolbox(work toolboxWork) func(*cobra.Command, []string) error {
	return c.withOpenToolbox(app.OpenWritableToolbox, work)
}

func (c *commandLine) withOpenToolbox(open func(context.Context, app.Env) (*app.Toolbox, error), work toolboxWork) func(*cobra.Command, []string) error {
	return c.withEnv(func(ctx context.Context, env app.Env, args []string) error {
		tools, err := open(ctx, env)
		if err != nil {
			return err
		}
		defer tools.Close()
		fmt.Fprintf(c.process.ErrOut, "database: %s\n", describeDatabase(env.Config.Database))
		return work(ctx, env, tools, args)
	})
}

// describeDatabase returns the database without its password, and of a file the whole path.
func describeDatabase(d config.Database) string {
	if path, embedded := d.SQLite(); embedded {
		return path
	}
	return d.String()
}

func newLogger(cfg config.Config, w io.Writer) *slog.Logger {
	opts := &slog.HandlerOptions{Level: cfg.LogLevel}
	var h slog.Handler = slog.NewTextHandler(w, opts)
	if cfg.LogFormat == config.LogJSON {
		h = slog.NewJSONHandler(w, opts)
	}
	return slog.New(requestlog.Handler(h))
}
