package main

import (
	"context"
	"flag"
	"fmt"
	"text/tabwriter"

	"github.com/smtp2rest/smtp2rest/relay/config"
)

func checkCommand() *command {
	return &command{
		name:    "check",
		summary: "Validate a configuration and print what is in force.",
		about: `Loads the configuration as 'serve' would and prints each setting with where it
came from. Secrets are not shown. It exits 0 when 'serve' would accept it and 78
with all that is wrong when not.

With --probe it connects instead to each listener, where 'serve' must be running,
from the addresses of this machine and without a login, tries to send to
somebody outside, and prints what it was told. No mail is sent. It exits 1 when
a stranger is let in, or when a listener does not answer.`,
		examples: []string{"smtp2rest check", "smtp2rest check --config config.toml", "smtp2rest check --probe --config /etc/smtp2rest/config.toml"},
		setup: func(fs *flag.FlagSet) action {
			path := fs.String("config", "", "TOML `file` with settings")
			probing := fs.Bool("probe", false, "try to relay through the listeners as a stranger")
			return func(ctx context.Context, t *terminal, args []string) error {
				if len(args) > 0 {
					return usagef("unexpected argument %q; name the file with --config", args[0])
				}
				cfg, err := loadConfig(t, config.Source{Path: *path, NeedAPI: true})
				if err != nil {
					return err
				}
				p := palette{t.color}
				if !*probing { // what strangers are told is not to be looked for below all that
					if err := printSettings(t, cfg); err != nil {
						return err
					}
				}
				for _, warning := range cfg.Warnings {
					fmt.Fprintf(t.out, "%s %s\n", p.red("warning:"), warning)
				}
				if _, err = fmt.Fprintln(t.out, p.green("The configuration is good.")); err != nil || !*probing {
					return err
				}
				return probeListeners(ctx, t, cfg)
			}
		},
	}
}

func printSettings(t *terminal, cfg *config.Config) error {
	w := tabwriter.NewWriter(t.out, 0, 0, 2, ' ', 0)
	for _, s := range cfg.Describe() {
		fmt.Fprintf(w, "%s\t%s\t%s\n", s.Path, s.Value, s.Origin)
	}
	return w.Flush()
}
