package cli

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"golang.org/x/term"
)

// isTerminal reports whether what the program reads or writes is a terminal.
func isTerminal(stream any) bool {
	f, ok := stream.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// maxPasswordLine bounds what is read for a password, in bytes.
const maxPasswordLine = 4096

// readPassword reads a new password: from a terminal twice and without an echo, else the first line of the
// standard input. It is never an argument, which other users of the machine see.
func (c *commandLine) readPassword(ctx context.Context) (string, error) {
	if f, ok := c.process.In.(*os.File); ok && isTerminal(f) {
		return c.promptPassword(ctx, int(f.Fd()))
	}
	if c.process.In == nil {
		return "", errNoPassword
	}
	line, err := bufio.NewReader(io.LimitReader(c.process.In, maxPasswordLine)).ReadString('\n')
	if err != nil && !errors.Is(err, io.EOF) {
		return "", fmt.Errorf("read the password: %w", err)
	}
	if line = strings.TrimRight(line, "\r\n"); line == "" {
		return "", errNoPassword
	}
	return line, nil
}

var errNoPassword = errors.New("the password is read from the terminal or the standard input, which has none")

// promptPassword asks for a password and its repetition. It ends with ctx.
func (c *commandLine) promptPassword(ctx context.Context, terminal int) (string, error) {
	before, err := term.GetState(terminal)
	if err != nil {
		return "", fmt.Errorf("read the password from the terminal: %w", err)
	}
	type answer struct {
		text string
		err  error
	}
	answers := make(chan answer, 1)
	go func() { // a read of a terminal cannot be cancelled: at worst it ends with the process
		text, err := c.askTwice(terminal)
		answers <- answer{text, err}
	}()
	select {
	case a := <-answers:
		return a.text, a.err
	case <-ctx.Done():
		return "", errors.Join(ctx.Err(), term.Restore(terminal, before))
	}
}

func (c *commandLine) askTwice(terminal int) (string, error) {
	var texts [2]string
	for i, prompt := range []string{"New password: ", "Again: "} {
		fmt.Fprint(c.process.ErrOut, prompt)
		text, err := term.ReadPassword(terminal)
		fmt.Fprintln(c.process.ErrOut)
		if err != nil {
			return "", fmt.Errorf("read the password from the terminal: %w", err)
		}
		texts[i] = string(text)
	}
	if texts[0] != texts[1] {
		return "", errors.New("the two passwords differ")
	}
	return texts[0], nil
}
