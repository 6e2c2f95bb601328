package suppressions

import (
	"fmt"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/smtp2rest/smtp2rest/cmd/smtp2rest/internal/reach"
	"github.com/smtp2rest/smtp2rest/cmd/smtp2rest/internal/terminal"
	"github.com/smtp2rest/smtp2rest/relay/admin"
)

func suppressionsAddCommand(t *terminal.Terminal) *cobra.Command {
	c := &cobra.Command{
		Use:   "add ADDRESS...",
		Short: "Refuse mail to addresses.",
		Long: `Puts addresses on the list, in the place of what was known of them. They stay
until they are removed, unless --expires is given. Mail to them that waits in
the queue is tried all the same: 'smtp2rest queue drop --recipient' removes it.`,
		Example: terminal.Examples("smtp2rest suppressions add bob@example.net --note 'asked by phone'", "smtp2rest suppressions add bob@example.net --reason complaint --expires 90d"),
	}
	fs := c.Flags()
	var s reach.Flags
	s.Declare(fs)
	var expires terminal.AgeValue
	reason := fs.String("reason", "operator", "the `reason` that the client is told")
	note := fs.String("note", "", "a `text` that the list shows")
	fs.Var(&expires, "expires", "after this `time`, such as 90d, mail goes out again")
	c.RunE = func(cmd *cobra.Command, args []string) error {
		ctx := cmd.Context()
		if len(args) == 0 {
			return terminal.Usagef("name the addresses")
		}
		if err := checkReason(*reason); err != nil {
			return err
		}
		now := time.Now()
		list := make([]admin.Suppression, len(args))
		for i, a := range args {
			list[i] = admin.Suppression{Address: a, Reason: *reason, Since: now, Note: *note}
			if expires > 0 {
				list[i].Expires = now.Add(time.Duration(expires))
			}
		}
		return s.WithSuppressions(ctx, t, func(a admin.Suppressions) error {
			n, err := a.AddSuppressions(ctx, list)
			if err != nil {
				return err
			}
			return printAddresses(t, n, "added", s.JSON)
		})
	}
	return c
}

func suppressionsRemoveCommand(t *terminal.Terminal) *cobra.Command {
	c := &cobra.Command{
		Use:   "remove ADDRESS...",
		Short: "Let mail to addresses go out again.",
		Long: `Takes addresses off the list. News of what happened before does not put them on
again, however late it comes. If they are on the provider's list as well, the
next mail to them is refused by the API, and is remembered again.`,
		Example: terminal.Examples("smtp2rest suppressions remove bob@example.net"),
	}
	fs := c.Flags()
	var s reach.Flags
	s.Declare(fs)
	c.RunE = func(cmd *cobra.Command, args []string) error {
		ctx := cmd.Context()
		if len(args) == 0 {
			return terminal.Usagef("name the addresses")
		}
		return s.WithSuppressions(ctx, t, func(a admin.Suppressions) error {
			total := 0
			for part := range slices.Chunk(args, admin.MaxSuppressions) {
				n, err := a.RemoveSuppressions(ctx, part)
				total += n
				if err != nil {
					return fmt.Errorf("%w (%s removed before that)", err, addresses(total))
				}
			}
			past := "removed"
			if total < len(args) {
				past = fmt.Sprintf("removed; %d not on the list", len(args)-total)
			}
			return printAddresses(t, total, past, s.JSON)
		})
	}
	return c
}
