// Package suppressions is 'smtp2rest suppressions': who must not be sent to.
package suppressions

import (
	"fmt"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/smtp2rest/smtp2rest/cmd/smtp2rest/internal/terminal"
	"github.com/smtp2rest/smtp2rest/relay/admin"
	"github.com/smtp2rest/smtp2rest/relay/suppress"
)

// Command is the operator's side of who must not be sent to.
func Command(t *terminal.Terminal) *cobra.Command {
	c := &cobra.Command{
		Use:   "suppressions",
		Short: "See and change who must not be sent to.",
		Long: `Lists addresses to which mail is refused at RCPT, with the reason, who told of it
and since when; the verbs below do the rest. What was learnt from the API and
from the provider's events expires (suppression.expire), what an operator adds
stays.

It asks the running daemon, or opens the data directory of one that is stopped,
found as 'smtp2rest queue' finds it. The list is this relay's own: the provider
has one too, and what is on that is refused by the API.`,
		Example: terminal.Examples("smtp2rest suppressions", "smtp2rest suppressions list --reason hard_bounce,complaint --domain example.net", "smtp2rest suppressions --json"),
	}
	addSuppressionsList(t, c)
	c.AddCommand(
		suppressionsListCommand(t), suppressionsShowCommand(t), suppressionsAddCommand(t), suppressionsRemoveCommand(t),
		suppressionsImportCommand(t), suppressionsExportCommand(t),
	)
	return c
}

// suppressionFilterFlags select entries.
type suppressionFilterFlags struct{ reasons, sources, domain string }

func (f *suppressionFilterFlags) declare(fs *pflag.FlagSet) {
	fs.StringVar(&f.reasons, "reason", "", "only these `reasons`, with commas: "+strings.Join(reasonNames(), ", "))
	fs.StringVar(&f.sources, "source", "", "only what these `sources` told, with commas: "+strings.Join(sourceNames(), ", "))
	fs.StringVar(&f.domain, "domain", "", "only addresses at this `domain`")
}

func (f *suppressionFilterFlags) filter() (admin.SuppressionFilter, error) {
	out := admin.SuppressionFilter{Reasons: terminal.SplitList(f.reasons), Sources: terminal.SplitList(f.sources), Domain: strings.TrimPrefix(f.domain, "@")}
	for _, name := range out.Reasons {
		if err := checkReason(name); err != nil {
			return out, err
		}
	}
	for _, name := range out.Sources {
		if _, ok := suppress.ParseSource(name); !ok {
			return out, terminal.Usagef("there is no source %q%s", name, terminal.NoSuch(name, sourceNames()))
		}
	}
	return out, nil
}

func checkReason(name string) error {
	if _, ok := suppress.ParseReason(name); !ok {
		return terminal.Usagef("there is no reason %q%s", name, terminal.NoSuch(name, reasonNames()))
	}
	return nil
}

func reasonNames() []string {
	var all []string
	for _, r := range suppress.Reasons() {
		all = append(all, r.String())
	}
	return all
}

func sourceNames() []string {
	var all []string
	for _, s := range suppress.Sources() {
		all = append(all, s.String())
	}
	return all
}

func addresses(n int) string {
	if n == 1 {
		return "1 address"
	}
	return fmt.Sprintf("%d addresses", n)
}

// printAddresses says to how many addresses something was done.
func printAddresses(t *terminal.Terminal, n int, past string, asJSON bool) error {
	if asJSON {
		return terminal.PrintJSON(t.Out, struct {
			Addresses int `json:"addresses"`
		}{n})
	}
	_, err := fmt.Fprintf(t.Out, "%s %s.\n", addresses(n), past)
	return err
}
