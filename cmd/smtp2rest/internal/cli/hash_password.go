package cli

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/smtp2rest/smtp2rest/cmd/smtp2rest/internal/terminal"
	"github.com/smtp2rest/smtp2rest/smtpd/auth"
)

func hashPasswordCommand(t *terminal.Terminal) *cobra.Command {
	c := &cobra.Command{
		Use:   "hash-password",
		Short: "Make the hash of a password for the configuration.",
		Long: `Reads a password and prints its bcrypt hash, for password_hash in a [[user]] of
the configuration or, with --user, a line for users_file. At a terminal it asks and
shows nothing of what is typed; otherwise it reads the first line of its input. The
password is never an argument, because others could see it there.`,
		Example: terminal.Examples(
			"smtp2rest hash-password",
			"smtp2rest hash-password --user app <password.txt >>/etc/smtp2rest/users",
			"smtp2rest hash-password --json <password.txt",
		),
		Args: terminal.Args(0, 0, "unexpected argument; the password is read from the input"), // which is not shown
	}
	fs := c.Flags()
	user := fs.String("user", "", "print a line of users_file for this `name`")
	asJSON := terminal.DeclareJSON(fs)
	c.RunE = func(cmd *cobra.Command, _ []string) error {
		if strings.ContainsAny(*user, ":\r\n") || strings.TrimSpace(*user) != *user {
			return terminal.Usagef("a user's name cannot contain a colon or a line end, nor begin or end with a space")
		}
		password, err := readPassword(cmd.Context(), t)
		if err != nil {
			return err
		}
		hash, err := auth.Hash(password)
		if err != nil {
			return err
		}
		if *asJSON {
			return terminal.PrintJSON(t.Out, struct {
				User string `json:"user,omitempty"`
				Hash string `json:"password_hash"`
			}{*user, hash})
		}
		if *user != "" {
			hash = *user + ":" + hash
		}
		_, err = fmt.Fprintln(t.Out, hash)
		return err
	}
	return c
}

// readPassword reads one line; a person is asked twice.
func readPassword(ctx context.Context, t *terminal.Terminal) (string, error) {
	tty, isFile := t.In.(*os.File)
	if !t.Asks || !isFile {
		line, err := bufio.NewReader(t.In).ReadString('\n')
		if err != nil && (!errors.Is(err, io.EOF) || line == "") {
			return "", fmt.Errorf("no password on the input: %w", err)
		}
		return strings.TrimRight(line, "\r\n"), nil
	}
	shown, err := term.GetState(int(tty.Fd()))
	if err != nil {
		return "", fmt.Errorf("cannot hide what is typed: %w", err)
	}
	show := func() { _ = term.Restore(int(tty.Fd()), shown) }
	defer context.AfterFunc(ctx, show)() // so that Ctrl-C does not leave a terminal that shows nothing
	fmt.Fprint(t.Err, "Password: ")
	first, err := term.ReadPassword(int(tty.Fd()))
	if err == nil {
		var second []byte
		fmt.Fprint(t.Err, "\nOnce more: ")
		if second, err = term.ReadPassword(int(tty.Fd())); err == nil && !bytes.Equal(first, second) {
			err = errors.New("these are two different passwords")
		}
	}
	fmt.Fprintln(t.Err)
	return string(first), errors.Join(err, ctx.Err())
}
