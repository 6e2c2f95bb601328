package cli

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"text/tabwriter"

	"github.com/BurntSushi/toml"
	"github.com/spf13/cobra"

	"github.com/smtp2rest/smtp2rest/cmd/smtp2rest/internal/reach"
	"github.com/smtp2rest/smtp2rest/cmd/smtp2rest/internal/terminal"
	"github.com/smtp2rest/smtp2rest/relay/config"
)

func checkCommand(t *terminal.Terminal) *cobra.Command {
	c := &cobra.Command{
		Use:   "check",
		Short: "Validate a configuration and print what is in force.",
		Long: `Loads the configuration as 'serve' would and prints each setting that does not have its
default, and a few that everybody asks for, with where it comes from; --all and --json
print every setting. Secrets are not shown. It exits 0 when 'serve' would accept the
configuration, and 78 with a list of all errors when not.

Without --config it checks the service's /etc/smtp2rest/config.toml, if there is one. When
the environment has an API key or FROM_EMAIL, it checks the environment instead, because
such a relay runs without a file.

With a file, a secret that systemd hands to the service is read from the file where our
unit keeps it (in /etc/smtp2rest or /etc/credstore). Only root can read that.

It warns of a spool of sendmail whose owner or mode is wrong, and of a socket that systemd
opens for the service at an address that no listener has.

With --probe it connects instead to each listener and tries to send to somebody outside,
from the addresses of this machine and without a login. It prints what it was told; no
mail is sent. 'serve' must be running. It exits 1 when a stranger is let in, or when a
listener does not answer. The sockets that systemd opened are left out, because only
systemd knows their addresses.`,
		Example: terminal.Examples("smtp2rest check", "smtp2rest check --config config.toml", "smtp2rest check --json", "sudo smtp2rest check --config /etc/smtp2rest/config.toml", "sudo smtp2rest check --probe --config /etc/smtp2rest/config.toml"),
		Args:    terminal.NoArgs("name the file with --config"),
	}
	fs := c.Flags()
	path := fs.String("config", "", "TOML `file` with settings")
	probing := fs.Bool("probe", false, "try to relay through the listeners as a stranger")
	all := fs.Bool("all", false, "print the settings that have their default as well")
	asJSON := terminal.DeclareJSON(fs)
	c.RunE = func(cmd *cobra.Command, _ []string) error {
		if *path == "" {
			*path = reach.ServiceConfig(t)
		}
		cfg, err := reach.LoadDaemonConfig(t, config.Source{Path: *path, NeedAPI: !*probing})
		if err == nil {
			cfg.Warnings = append(cfg.Warnings, spoolWarnings(cfg)...)
			if *path == t.Service {
				cfg.Warnings = append(cfg.Warnings, socketWarnings(cfg, "/etc/systemd/system", "/usr/lib/systemd/system")...)
			}
		}
		if *asJSON {
			return checkJSON(cmd.Context(), t, cfg, *probing, err)
		}
		if err != nil {
			return err
		}
		return check(cmd.Context(), t, cfg, checking{file: *path, all: *all, probing: *probing})
	}
	return c
}

// checking says what check prints.
type checking struct {
	file    string // the configuration file; "" is the environment alone
	all     bool
	probing bool
}

func check(ctx context.Context, t *terminal.Terminal, cfg *config.Config, c checking) error {
	p := t.Palette()
	if !c.probing { // the settings would bury the answers of the listeners
		if err := printSettings(t, cfg, c.all); err != nil {
			return err
		}
	}
	for _, warning := range cfg.Warnings {
		fmt.Fprintf(t.Out, "%s %s\n", p.Red("warning:"), warning)
	}
	if c.probing {
		asked, err := probeListeners(ctx, cfg, func(a answered) { a.print(t) })
		return errors.Join(err, judge(asked))
	}
	of := ""
	if c.file != "" {
		of = " in " + terminal.Printable(c.file)
	}
	_, err := fmt.Fprintln(t.Out, p.Green("The configuration"+of+" is good."))
	return err
}

// printSettings prints the settings in force. Those with their default are left
// out, unless all is true or everybody asks for them.
func printSettings(t *terminal.Terminal, cfg *config.Config, all bool) error {
	w := tabwriter.NewWriter(t.Out, 0, 0, 2, ' ', 0)
	left := 0
	for _, s := range reach.EffectiveSettings(cfg) {
		if !all && (s.Origin == "default" || s.Origin == "") && !askedFor(s.Path) { // "" is a secret that is not set
			left++
			continue
		}
		fmt.Fprintf(w, "%s\t%s\t%s\n", s.Path, s.Value, s.Origin)
	}
	if left > 0 {
		fmt.Fprintf(w, "(%d more have their defaults; --all shows them)\n", left)
	}
	return w.Flush()
}

func askedFor(path string) bool {
	switch regexp.MustCompile(`#\d+`).ReplaceAllString(path, "") {
	case "sender.email", "sender.domains", "api.url", "api.key", "listener.address", "listener.networks", "queue.data_dir", "admin.socket":
		return true
	}
	return false
}

// checked is what check found, for --json.
type checked struct {
	Good     bool               `json:"good"`
	Problems []terminal.Problem `json:"problems"`
	Warnings []string           `json:"warnings"`
	Settings []checkedSetting   `json:"settings"`
	Probes   []answered         `json:"probes,omitempty"`
}

// checkedSetting is a setting in force.
type checkedSetting struct {
	Setting string `json:"setting"`
	Value   any    `json:"value"` // of a secret, only whether it is set
	Origin  string `json:"origin"`
}

// checkJSON prints what check found. The errors in a configuration are part of
// that, so they go to standard output.
func checkJSON(ctx context.Context, t *terminal.Terminal, cfg *config.Config, probing bool, wrong error) error {
	c := checked{Good: wrong == nil, Problems: []terminal.Problem{}, Warnings: []string{}, Settings: []checkedSetting{}}
	if problems, ok := errors.AsType[config.Errors](wrong); ok {
		c.Problems = terminal.ProblemsOf(problems)
		return errors.Join(terminal.PrintJSON(t.Out, c), &terminal.ExitError{Code: terminal.ExitConfig})
	}
	if wrong != nil {
		return wrong
	}
	c.Warnings = terminal.OrEmpty(cfg.Warnings)
	for _, s := range reach.EffectiveSettings(cfg) {
		c.Settings = append(c.Settings, checkedSetting{s.Path, plainValue(s.Value), s.Origin})
	}
	var err error
	if probing {
		if c.Probes, err = probeListeners(ctx, cfg, func(answered) {}); err != nil {
			return err
		}
	}
	return errors.Join(terminal.PrintJSON(t.Out, c), judge(c.Probes))
}

// plainValue turns a value that is written in TOML into one for JSON. Text that is
// not TOML, such as "set", stays as it is.
func plainValue(text string) any {
	var v struct{ V any }
	if _, err := toml.Decode("V = "+text, &v); err != nil {
		return text
	}
	return v.V
}
