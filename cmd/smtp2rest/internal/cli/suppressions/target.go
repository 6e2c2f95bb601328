package suppressions

import (
	"context"
	"iter"

	"github.com/spf13/pflag"

	"github.com/smtp2rest/smtp2rest/cmd/smtp2rest/internal/reach"
	"github.com/smtp2rest/smtp2rest/cmd/smtp2rest/internal/terminal"
	"github.com/smtp2rest/smtp2rest/relay/admin"
)

// target is a relay and, where it has several accounts, the one whose list is meant.
type target struct {
	reach.Flags
	account string
}

// Declare declares the flags.
func (g *target) Declare(fs *pflag.FlagSet) {
	g.Flags.Declare(fs)
	fs.StringVar(&g.account, "account", "", "the list of this `account`, where there are several; without it, a list has all, and else the default one is meant")
}

// WithSuppressions calls f with the list.
func (g *target) WithSuppressions(ctx context.Context, t *terminal.Terminal, f func(admin.Suppressions) error) error {
	return g.Flags.WithRecords(ctx, t, func(o reach.Operator) error {
		if g.account != "" {
			return f(o.InAccount(g.account))
		}
		return f(o)
	})
}

// lists calls f with the lists to show: of the account that is named, or else of each one.
// several says that there is more than one account to tell apart.
func (g *target) lists(ctx context.Context, t *terminal.Terminal, f func(list iter.Seq2[admin.Suppression, error], several bool) error, filter admin.SuppressionFilter) error {
	return g.Flags.WithRecords(ctx, t, func(o reach.Operator) error {
		accounts := accountsOf(ctx, o)
		if g.account != "" || len(accounts) == 0 {
			filter.Account = g.account
			return f(admin.AllSuppressions(ctx, o, filter), false)
		}
		return f(func(yield func(admin.Suppression, error) bool) {
			for _, account := range accounts {
				of := filter
				of.Account = account
				for e, err := range admin.AllSuppressions(ctx, o, of) {
					e.Account = account
					if !yield(e, err) || err != nil {
						return
					}
				}
			}
		}, true)
	})
}

// accountsOf returns the accounts of a running relay, where there are several.
func accountsOf(ctx context.Context, o reach.Operator) (names []string) {
	s, err := o.Status(ctx)
	if err != nil {
		return nil // the list can be read without the queue
	}
	for _, a := range s.Accounts {
		if a.Pace != nil {
			names = append(names, a.Name)
		}
	}
	return names
}
