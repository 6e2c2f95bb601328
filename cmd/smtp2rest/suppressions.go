package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/smtp2rest/smtp2rest/cmd/smtp2rest/internal/owner"
	"github.com/smtp2rest/smtp2rest/relay/admin"
	"github.com/smtp2rest/smtp2rest/relay/store/records"
	"github.com/smtp2rest/smtp2rest/relay/suppress"
)

// suppressionsCommand is the operator's side of who must not be sent to.
func suppressionsCommand(t *terminal) *cobra.Command {
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
		Example: examples("smtp2rest suppressions", "smtp2rest suppressions list --reason hard_bounce,complaint --domain example.net", "smtp2rest suppressions --json"),
	}
	addSuppressionsList(t, c)
	c.AddCommand(
		suppressionsListCommand(t), suppressionsShowCommand(t), suppressionsAddCommand(t), suppressionsRemoveCommand(t),
		suppressionsImportCommand(t), suppressionsExportCommand(t),
	)
	return c
}

// suppressionFlags are the flags of every verb.
type suppressionFlags struct {
	reach reach
	json  bool
}

func (s *suppressionFlags) declare(fs *pflag.FlagSet) {
	s.reach.declare(fs)
	declareJSON(fs, &s.json)
}

// with runs f with the list that the flags lead to.
func (s *suppressionFlags) with(ctx context.Context, t *terminal, f func(admin.Suppressions) error) error {
	return s.reach.withSuppressions(ctx, t, f)
}

// withSuppressions asks the running daemon or, if there is none, opens what
// its data directory has.
func (r reach) withSuppressions(ctx context.Context, t *terminal, f func(admin.Suppressions) error) error {
	places, err := r.places(t)
	if err != nil {
		return err
	}
	for _, p := range places {
		c, err := p.dial(ctx)
		switch {
		case err == nil:
			return f(c)
		case !errors.Is(err, admin.ErrNotRunning) || p.dir == "" && len(places) == 1:
			return err
		case p.dir == "":
			continue
		}
		if err := withRecords(t, p, f); !errors.Is(err, errNoQueue) {
			return err
		}
	}
	return noneOf(places)
}

// withRecords opens the records of a daemon that is stopped.
func withRecords(t *terminal, p place, f func(admin.Suppressions) error) (err error) {
	switch _, err := os.Stat(filepath.Join(p.dir, records.FileName)); {
	case errors.Is(err, fs.ErrNotExist):
		return errNoQueue
	case err != nil:
		return denied(p.dir, err)
	}
	if err := owner.Become(p.dir); err != nil {
		return err
	}
	store, err := records.Open(records.Options{Dir: p.dir, Existing: true, Log: warnings(t)})
	if err != nil {
		return p.explain(err)
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	return f(admin.NewSuppressions(store))
}

// suppressionFilterFlags select entries.
type suppressionFilterFlags struct{ reasons, sources, domain string }

func (f *suppressionFilterFlags) declare(fs *pflag.FlagSet) {
	fs.StringVar(&f.reasons, "reason", "", "only these `reasons`, with commas: "+strings.Join(reasonNames(), ", "))
	fs.StringVar(&f.sources, "source", "", "only what these `sources` told, with commas: "+strings.Join(sourceNames(), ", "))
	fs.StringVar(&f.domain, "domain", "", "only addresses at this `domain`")
}

func (f *suppressionFilterFlags) filter() (admin.SuppressionFilter, error) {
	out := admin.SuppressionFilter{Reasons: splitList(f.reasons), Sources: splitList(f.sources), Domain: strings.TrimPrefix(f.domain, "@")}
	for _, name := range out.Reasons {
		if err := checkReason(name); err != nil {
			return out, err
		}
	}
	for _, name := range out.Sources {
		if _, ok := suppress.ParseSource(name); !ok {
			return out, usagef("there is no source %q%s", name, noSuch(name, sourceNames()))
		}
	}
	return out, nil
}

func checkReason(name string) error {
	if _, ok := suppress.ParseReason(name); !ok {
		return usagef("there is no reason %q%s", name, noSuch(name, reasonNames()))
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
func printAddresses(t *terminal, n int, past string, asJSON bool) error {
	if asJSON {
		return printJSON(t.out, struct {
			Addresses int `json:"addresses"`
		}{n})
	}
	_, err := fmt.Fprintf(t.out, "%s %s.\n", addresses(n), past)
	return err
}
