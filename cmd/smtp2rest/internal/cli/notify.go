package cli

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/smtp2rest/smtp2rest/cmd/smtp2rest/internal/reach"
	"github.com/smtp2rest/smtp2rest/cmd/smtp2rest/internal/terminal"
	"github.com/smtp2rest/smtp2rest/relay/config"
	"github.com/smtp2rest/smtp2rest/relay/notify"
)

func notifyCommand(t *terminal.Terminal) *cobra.Command {
	c := &cobra.Command{
		Use:   "notify",
		Short: "Test that somebody is told of failures.",
		Long: `The relay tells of failures as [notify] in its configuration says: by mail and by a
signed POST to an address. 'test' posts a notification to that address.`,
		Example: terminal.Examples("smtp2rest notify test"),
	}
	c.Long += terminal.NoJSON("test has it")
	c.RunE = func(*cobra.Command, []string) error { return terminal.Usagef("give a subcommand: test") }
	c.AddCommand(notifyTestCommand(t))
	return c
}

func notifyTestCommand(t *terminal.Terminal) *cobra.Command {
	c := &cobra.Command{
		Use:   "test",
		Short: "Post a signed notification to notify.url.",
		Long: `Posts a notification to notify.url, signed as the relay signs it. Its only cause is
"test". It exits 0 when the answer is 2xx. The running relay is not asked. To try an
address of notify.mail, send it a mail with 'smtp2rest send'.`,
		Example: terminal.Examples("smtp2rest notify test --config /etc/smtp2rest/config.toml", "smtp2rest notify test --json"),
		Args:    terminal.NoArgs(""),
	}
	path := c.Flags().String("config", "", "TOML `file` with settings")
	asJSON := terminal.DeclareJSON(c.Flags())
	c.RunE = func(cmd *cobra.Command, _ []string) error {
		cfg, err := reach.LoadDaemonConfig(t, config.Source{Path: *path})
		if err != nil {
			return err
		}
		if cfg.Notify.URL == "" {
			return errors.New("notify.url is not set, so nothing is posted when something fails")
		}
		n, err := notify.Test(cmd.Context(), cfg.Notify.Settings, cfg.Notify.Secret.Reveal(), cfg.Hostname, t.Version)
		if err != nil {
			return fmt.Errorf("notify.url did not take it: %w", err)
		}
		if *asJSON {
			return terminal.PrintJSON(t.Out, n)
		}
		_, err = fmt.Fprintf(t.Out, "notify.url took the notification %s.\n", n.ID)
		return err
	}
	return c
}
