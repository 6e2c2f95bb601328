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
		Long: `Loads the configuration as 'serve' would and prints the settings that are not at
their default, and those that everybody asks for, with where each came from; --all
and --json print every one. Secrets are not shown. It exits 0 when 'serve' would
accept the configuration and 78 with all that is wrong when not.

Without --config it is the service's /etc/smtp2rest/config.toml that is checked, if there
is one, unless the environment has an API key or FROM_EMAIL, as for a relay that runs
without a file.

Where there is a file, a secret that systemd hands to the service is read from where our unit
takes it (/etc/smtp2rest/nexuspromail_api_key), for which root's rights are needed.

With --probe it connects instead to each listener, where 'serve' must be running,
from the addresses of this machine and without a login, tries to send to
somebody outside, and prints what it was told. No mail is sent. It exits 1 when
a stranger is let in, or when a listener does not answer. Not asked are the
sockets that systemd opened, because only systemd knows where they are.`,
		Example: terminal.Examples("smtp2rest check", "smtp2rest check --config config.toml", "smtp2rest check --json", "sudo smtp2rest check --config /etc/smtp2rest/config.toml", "sudo smtp2rest check --probe --config /etc/smtp2rest/config.toml"),
	}
	fs := c.Flags()
	path := fs.String("config", "", "TOML `file` with settings")
	probing := fs.Bool("probe", false, "try to relay through the listeners as a stranger")
	all := fs.Bool("all", false, "print the settings that have their default as well")
	var asJSON bool
	terminal.DeclareJSON(fs, &asJSON)
	c.RunE = func(cmd *cobra.Command, args []string) error {
		ctx := cmd.Context()
		if len(args) > 0 {
			return terminal.Usagef("unexpected argument %q; name the file with --config", args[0])
		}
		if *path == "" {
			*path = reach.ServiceConfig(t)
		}
		cfg, err := reach.LoadForeign(t, config.Source{Path: *path, NeedAPI: !*probing})
		if asJSON {
			return checkJSON(ctx, t, cfg, *probing, err)
		}
		if err != nil {
			return err
		}
		return check(ctx, t, cfg, checking{file: *path, all: *all, probing: *probing})
	}
	return c
}

// checking is what check is asked to do.
type checking struct {
	file    string // whose configuration it is; "" is the environment's alone
	all     bool
	probing bool
}

func check(ctx context.Context, t *terminal.Terminal, cfg *config.Config, c checking) error {
	p := t.Palette()
	if !c.probing { // what strangers are told is not to be looked for below all that
		if err := printSettings(t, cfg, c.all); err != nil {
			return err
		}
	}
	for _, warning := range cfg.Warnings {
		fmt.Fprintf(t.Out, "%s %s\n", p.Red("warning:"), warning)
	}
	if !c.probing {
		_, err := fmt.Fprintln(t.Out, p.Green("The configuration"+of(c.file)+" is good."))
		return err
	}
	asked, err := probeListeners(ctx, cfg, func(a answered) { a.print(t) })
	if err != nil {
		return err
	}
	return judge(asked)
}

func of(file string) string {
	if file == "" {
		return ""
	}
	return " in " + terminal.Printable(file)
}

// printSettings prints what is in force, of what is as always only what
// everybody asks for.
func printSettings(t *terminal.Terminal, cfg *config.Config, all bool) error {
	w := tabwriter.NewWriter(t.Out, 0, 0, 2, ' ', 0)
	left := 0
	for _, s := range reach.InForce(cfg) {
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

// checked is what check found.
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
	Value   any    `json:"value"` // of a secret only whether it is set
	Origin  string `json:"origin"`
}

// plainValue is what TOML writes as JSON has it, or else as it is.
func plainValue(text string) any {
	var v struct{ V any }
	if _, err := toml.Decode("V = "+text, &v); err != nil {
		return text
	}
	return v.V
}

// checkJSON prints what check finds, also what is wrong, as that is what was
// asked for.
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
	for _, s := range reach.InForce(cfg) {
		c.Settings = append(c.Settings, checkedSetting{s.Path, plainValue(s.Value), s.Origin})
	}
	if !probing {
		return terminal.PrintJSON(t.Out, c)
	}
	asked, err := probeListeners(ctx, cfg, func(answered) {})
	if err != nil {
		return err
	}
	c.Probes = asked
	return errors.Join(terminal.PrintJSON(t.Out, c), judge(asked))
}
