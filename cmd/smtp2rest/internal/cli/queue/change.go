package queue

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"github.com/smtp2rest/smtp2rest/cmd/smtp2rest/internal/owner"
	"github.com/smtp2rest/smtp2rest/cmd/smtp2rest/internal/reach"
	"github.com/smtp2rest/smtp2rest/cmd/smtp2rest/internal/terminal"
	"github.com/smtp2rest/smtp2rest/relay/admin"
	"github.com/smtp2rest/smtp2rest/relay/store"
)

// change is a command that changes many recipients at once.
type change struct {
	cobra.Command
	past    string // what was done, as in "3 recipients held"
	do      func(admin.Admin, context.Context, admin.Filter) (int, error)
	confirm bool // it cannot be undone
}

func holdCommand(t *terminal.Terminal) *cobra.Command {
	return (&change{past: "held", do: admin.Admin.Hold, Command: cobra.Command{
		Use:   "hold [ID...]",
		Short: "Keep recipients from being tried until they are released.",
		Long: `Holds waiting recipients. A recipient that is being tried now is held if that attempt
does not succeed. Mail that comes later is not held.`,
		Example: terminal.Examples("smtp2rest queue hold 06h0kq3n2a", "smtp2rest queue hold --sender news@example.com"),
	}}).command(t)
}

func releaseCommand(t *terminal.Terminal) *cobra.Command {
	return (&change{past: "released", do: admin.Admin.Release, Command: cobra.Command{
		Use:     "release [ID...]",
		Short:   "Let held recipients wait again.",
		Long:    "Ends a hold: the recipients wait again until the time they were due.",
		Example: terminal.Examples("smtp2rest queue release 06h0kq3n2a", "smtp2rest queue release --all"),
	}}).command(t)
}

func retryCommand(t *terminal.Terminal) *cobra.Command {
	return (&change{past: "due now", do: admin.Admin.Retry, Command: cobra.Command{
		Use:   "retry [ID...]",
		Short: "Make recipients due now, failed ones as well.",
		Long: `Makes waiting recipients due at once. Failed recipients wait again as if they had just
come; if they fail again, their senders are not told a second time. Held recipients
stay held.`,
		Example: terminal.Examples("smtp2rest queue retry 06h0kq3n2a", "smtp2rest queue retry --state failed --newer 2d"),
	}}).command(t)
}

func dropCommand(t *terminal.Terminal) *cobra.Command {
	return (&change{past: "dropped", do: admin.Admin.Drop, confirm: true, Command: cobra.Command{
		Use:   "drop [ID...]",
		Short: "Remove recipients for good, and tell nobody.",
		Long: `Removes recipients that are not sent yet, and their mail when no other recipient needs
it. Neither the sender nor the recipient is told, and it cannot be undone. It asks
first, unless --yes is given. An attempt that is under way may still succeed.`,
		Example: terminal.Examples("smtp2rest queue drop 06h0kq3n2a", "smtp2rest queue drop --state failed --older 30d --yes"),
	}}).command(t)
}

func (c *change) command(t *terminal.Terminal) *cobra.Command {
	c.Long += `

Name mails by their ids, or select them by filters, or say --all. Filters beside ids
select among the recipients of those mails.`
	fs := c.Flags()
	var r reach.Flags
	var s selection
	r.Declare(fs)
	s.declare(&c.Command)
	all := fs.Bool("all", false, "everything; cannot be combined with ids and filters")
	yes := new(bool)
	if c.confirm {
		fs.BoolVar(yes, "yes", false, "do not ask")
	}
	c.RunE = func(cmd *cobra.Command, ids []string) error {
		ctx := cmd.Context()
		filter, err := s.filter()
		if err != nil {
			return err
		}
		switch selects := filter.Selects() || len(ids) > 0; {
		case *all && selects:
			return terminal.Usagef("--all is everything: leave it out, or the ids and filters")
		case !*all && !selects:
			return terminal.Usagef("say what to %s: ids, a filter such as --sender, or --all", c.Name())
		case s.ID != "" && len(ids) > 0:
			return terminal.Usagef("name ids either in full or by --id")
		case c.confirm && !*yes && !t.Asks:
			return terminal.Usagef("no terminal to ask at; use --yes to confirm")
		}
		filter.All = *all
		return r.With(ctx, t, func(o reach.Operator) error { return c.run(ctx, t, o, filter, ids, *yes, r.JSON) })
	}
	return &c.Command
}

func (c *change) run(ctx context.Context, t *terminal.Terminal, a admin.Admin, filter admin.Filter, ids []string, yes, asJSON bool) error {
	filters, err := oneForEach(ctx, a, filter, ids)
	if err != nil {
		return err
	}
	if c.confirm && !yes {
		if err := confirmDrop(ctx, t, a, filters); err != nil {
			return err
		}
	}
	total := 0
	for _, f := range filters {
		n, err := c.do(a, ctx, f)
		total += n
		if err != nil {
			return fmt.Errorf("%w (%s %s before that)", err, terminal.Counted(total, "recipient"), c.past)
		}
	}
	return printChanged(t, total, c.past, asJSON)
}

// oneForEach returns a filter for each id, with the id in full. When a shortened
// id can mean several mails, it fails before anything is changed.
func oneForEach(ctx context.Context, a admin.Admin, f admin.Filter, ids []string) ([]admin.Filter, error) {
	if len(ids) == 0 {
		return []admin.Filter{f}, nil
	}
	filters := make([]admin.Filter, len(ids))
	for i, id := range ids {
		m, err := a.Get(ctx, id)
		if err != nil {
			return nil, err
		}
		filters[i] = f
		filters[i].ID = m.ID
	}
	return filters, nil
}

// mostCounted bounds how many recipients are counted for a question.
const mostCounted = 10_000

// confirmDrop says how much would be dropped and asks.
func confirmDrop(ctx context.Context, t *terminal.Terminal, a admin.Admin, filters []admin.Filter) error {
	n, mails, last := 0, 0, ""
	for _, f := range filters {
		f.All = false
		for e, err := range admin.All(ctx, a, f) {
			if err != nil {
				return err
			}
			if e.State == "sent" {
				continue
			}
			if n++; e.ID != last {
				mails, last = mails+1, e.ID
			}
			if n > mostCounted {
				break
			}
		}
	}
	if n == 0 {
		return nil
	}
	what := fmt.Sprintf("%s of %s", terminal.Counted(n, "recipient"), terminal.Counted(mails, "mail"))
	if n > mostCounted {
		what = fmt.Sprintf("more than %d recipients", mostCounted)
	}
	return t.Confirm(ctx, "Drop "+what+"? Nobody is told, and it cannot be undone.")
}

func reassignCommand(t *terminal.Terminal) *cobra.Command {
	c := &cobra.Command{
		Use:   "reassign [ID...] --to ACCOUNT",
		Short: "Give mail that waits or failed to another account.",
		Long: `Gives mails to another account, with all their recipients: those that have a recipient
that is not sent yet. Use it for mail of an account that was removed, which is kept and
not sent. An attempt that is under way is still made by the account that began it.

Name mails by their ids, or select them by filters, or say --all. --account is whose mail
it is now; "default" is the account of [api].`,
		Example: terminal.Examples("smtp2rest queue reassign --account shop --to default", "smtp2rest queue reassign 06h0kq3n2a --to news"),
	}
	fs := c.Flags()
	var r reach.Flags
	var s selection
	r.Declare(fs)
	s.declare(c)
	all := fs.Bool("all", false, "everything; cannot be combined with ids and filters")
	to := fs.String("to", "", "the `account` that gets the mail")
	c.RunE = func(cmd *cobra.Command, ids []string) error {
		ctx := cmd.Context()
		filter, err := s.filter()
		if err != nil {
			return err
		}
		switch selects := filter.Selects() || len(ids) > 0; {
		case *to == "":
			return terminal.Usagef("say which account gets the mail: --to")
		case *all && selects:
			return terminal.Usagef("--all is everything: leave it out, or the ids and filters")
		case !*all && !selects:
			return terminal.Usagef("say what to reassign: ids, a filter such as --account, or --all")
		}
		filter.All = *all
		return r.With(ctx, t, func(o reach.Operator) error { return reassign(ctx, t, o, filter, ids, *to, r.JSON) })
	}
	return c
}

func reassign(ctx context.Context, t *terminal.Terminal, a admin.Admin, filter admin.Filter, ids []string, to string, asJSON bool) error {
	filters, err := oneForEach(ctx, a, filter, ids)
	if err != nil {
		return err
	}
	total := 0
	for _, f := range filters {
		n, err := a.Reassign(ctx, f, to)
		total += n
		if err != nil {
			return fmt.Errorf("%w (%s moved before that)", err, terminal.Counted(total, "mail"))
		}
	}
	if asJSON {
		return terminal.PrintJSON(t.Out, struct {
			Mails int `json:"mails"`
		}{total})
	}
	_, err = fmt.Fprintf(t.Out, "%s moved to account %s.\n", terminal.Counted(total, "mail"), terminal.Printable(to))
	return err
}

func flushCommand(t *terminal.Terminal) *cobra.Command {
	c := &cobra.Command{
		Use:   "flush",
		Short: "Make everything that waits due now.",
		Long: `Makes all waiting recipients due at once, for example after an outage. The account's
rate and a pause that the API asked for still hold. Held and failed recipients are
left as they are.`,
		Example: terminal.Examples("smtp2rest queue flush"),
		Args:    terminal.NoArgs("'queue retry %[1]s' is for one mail"),
	}
	var r reach.Flags
	r.Declare(c.Flags())
	c.RunE = func(cmd *cobra.Command, _ []string) error {
		ctx := cmd.Context()
		return r.With(ctx, t, func(o reach.Operator) error {
			n, err := o.Flush(ctx)
			if err != nil {
				return fmt.Errorf("%w (%s due now before that)", err, terminal.Counted(n, "recipient"))
			}
			if err := printChanged(t, n, "due now", r.JSON); err != nil || r.JSON {
				return err
			}
			s, err := o.Status(ctx)
			if err == nil && s.State != admin.StateFine {
				_, err = fmt.Fprintf(t.Out, "It does not go out yet: %s\n", terminal.Printable(s.Summary))
			}
			return err
		})
	}
	return c
}

func printChanged(t *terminal.Terminal, n int, past string, asJSON bool) error {
	if asJSON {
		return terminal.PrintJSON(t.Out, struct {
			Recipients int `json:"recipients"`
		}{n})
	}
	_, err := fmt.Fprintf(t.Out, "%s %s.\n", terminal.Counted(n, "recipient"), past)
	return err
}

func setAsideCommand(t *terminal.Terminal) *cobra.Command {
	c := &cobra.Command{
		Use:   "set-aside",
		Short: "Rename a damaged queue, so that the next start has an empty one.",
		Long: `Renames the database and the spool of a stopped daemon. Use it when the daemon says
that they are damaged and mail has to flow before somebody can rescue what is
readable. Nothing is removed. The daemon must not run.`,
		Example: terminal.Examples("sudo smtp2rest queue set-aside --data-dir /var/lib/smtp2rest"),
		Args:    terminal.NoArgs("name the queue with --data-dir or --config"),
	}
	var r reach.Flags
	r.DeclareDir(c.Flags())
	c.RunE = func(*cobra.Command, []string) error {
		if _, named := t.Env("SMTP2REST_DATA_DIR"); !named && r.Dir == "" && r.Config == "" { // a guess is not good enough
			return terminal.Usagef("name the queue with --data-dir, --config or SMTP2REST_DATA_DIR")
		}
		return setAside(t, r)
	}
	return c
}

func setAside(t *terminal.Terminal, r reach.Flags) error {
	dir, err := r.DataDir(t)
	if err != nil {
		return err
	}
	_, spool := os.Lstat(filepath.Join(dir, "spool"))
	if errors.Is(store.Exists(store.SQLite(dir), store.OnlyQueue), fs.ErrNotExist) && errors.Is(spool, fs.ErrNotExist) {
		return fmt.Errorf("there is no queue in %s", dir)
	}
	if err := owner.Become(dir); err != nil {
		return err
	}
	name, err := store.SetAside(store.SQLite(dir), time.Now())
	switch {
	case err != nil:
		return err
	case r.JSON:
		return terminal.PrintJSON(t.Out, struct {
			Renamed string `json:"renamed"`
		}{name})
	}
	_, err = fmt.Fprintf(t.Out, "The queue is now %s, with its spool beside it. The next start has an empty queue.\n", name)
	return err
}
