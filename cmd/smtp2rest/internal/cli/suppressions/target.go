package suppressions

import (
	"context"

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
	fs.StringVar(&g.account, "account", "", "the list of this `account`, where there are several; without it, of the default one")
}

// WithSuppressions calls f with the list.
func (g *target) WithSuppressions(ctx context.Context, t *terminal.Terminal, f func(admin.Suppressions) error) error {
	return g.Flags.WithSuppressions(ctx, t, func(o reach.Operator) error {
		if g.account != "" {
			return f(o.InAccount(g.account))
		}
		return f(o)
	})
}
