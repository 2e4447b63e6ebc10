package cli

import (
	"context"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/backplane-dev/backplane/internal/app"
	"github.com/backplane-dev/backplane/internal/demo"
)

func (c *commandLine) seedCommand() *cobra.Command {
	var size demo.Size
	cmd := &cobra.Command{
		Use:   "seed",
		Short: "fill an empty database with generated users, products and orders",
		Long:  "Generates the same data each time for the same sizes. The users have no passwords. A database that is not empty is refused.",
		Args:  atMost(0),
		RunE: c.withWritableToolbox(func(ctx context.Context, env app.Env, tools *app.Toolbox, _ []string) error {
			if err := demo.FillRandom(ctx, tools.DB, size, progressBar(c.process.ErrOut)); err != nil {
				return err
			}
			_, err := fmt.Fprintf(env.Out, "created %d users and %d orders; the users have no passwords\n", size.Users, size.Orders)
			return err
		}),
	}
	cmd.Flags().IntVar(&size.Users, "users", 1000, "number of users")
	cmd.Flags().IntVar(&size.Orders, "orders", 5000, "number of orders")
	cmd.Flags().IntVar(&size.Lines, "lines", 3, "maximum number of lines of an order")
	return cmd
}

// progressBar returns a function that shows the progress of a long task: on a terminal it draws a bar, else it writes a line for
// every tenth.
func progressBar(out io.Writer) func(done, total int) {
	const width = 40
	shown, drawn := -1, isTerminal(out)
	return func(done, total int) {
		percent := 100
		if total > 0 {
			percent = 100 * done / total
		}
		if percent == shown {
			return
		}
		if !drawn {
			if percent/10 != shown/10 || shown < 0 {
				fmt.Fprintf(out, "%d %%\n", percent)
			}
			shown = percent
			return
		}
		shown = percent
		full := width * percent / 100
		fmt.Fprintf(out, "\r[%s%s] %3d %%", strings.Repeat("#", full), strings.Repeat(" ", width-full), percent)
		if percent == 100 {
			fmt.Fprintln(out)
		}
	}
}
