package app

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/smtp2rest/smtp2rest/relay/admin"
	"github.com/smtp2rest/smtp2rest/relay/config"
	"github.com/smtp2rest/smtp2rest/relay/intake"
	"github.com/smtp2rest/smtp2rest/relay/spool"
	"github.com/smtp2rest/smtp2rest/smtpd"
)

func spoolSettings(c *config.Config) spool.Settings {
	return spool.Settings{Dir: c.Sendmail.Spool, MaxAge: c.Delivery.Retry.MaxAge}
}

// startSpool begins to hand over the mail that sendmail keeps, by a session with our own
// listener: it is bound by what its sender would have been bound by.
func (d *daemon) startSpool(core *core, server *smtpd.Server) {
	k := spool.New(spool.Options{
		Settings: spoolSettings(d.config()),
		Dial:     func(ctx context.Context) (spool.Conn, error) { return server.Dial(ctx) },
		Refused: func(ctx context.Context, kept spool.Kept, m spool.Mail, list []spool.Refused) error {
			var turned []intake.Turned
			for _, r := range list {
				turned = append(turned, intake.Turned{To: d.qualified(r.Recipient), Reply: r.Reply})
			}
			return core.intake.GiveBack(ctx, smtpd.Kept(kept), d.qualified(m.From), m.Data, turned)
		},
		Log:     d.opt.Log,
		Metrics: d.metrics,
	})
	if core.kept.queue == nil {
		return // its setting is Off then; the metrics are there
	}
	k.Start()
	d.onDrain(func(context.Context) { k.Stop() }) // what it would begin now has to wait anyway
	d.onStop(func(context.Context) error { k.Stop(); return nil })
	onReload(d, "spool", spoolSettings, k.Prepare)
	d.onStatus(func(_ context.Context, now time.Time) []admin.Warning { return spoolWarnings(k.State(), now) })
}

// qualified completes an address as a listener does.
func (d *daemon) qualified(address string) string {
	if domain := d.config().Addresses.QualifyDomain; address != "" && domain != "" && !strings.Contains(address, "@") {
		return address + "@" + domain
	}
	return address
}

// spoolLate is how long mail may wait in the spool of a relay that runs.
const spoolLate = 5 * time.Minute

// spoolWarnings tell of mail that sendmail keeps.
func spoolWarnings(s spool.State, now time.Time) []admin.Warning {
	var list []admin.Warning
	w := admin.Warning{Level: admin.LevelInfo, Cause: admin.CauseSpool, Count: int64(s.Mails), Why: "programs sent it while the relay was away or could not take it",
		Do: "nothing: it is handed over within seconds"}
	switch {
	case s.Mails == 1:
		w.What, w.Since = "1 mail waits in the spool of sendmail", s.Oldest
	case s.Mails > 1:
		w.What, w.Since = fmt.Sprintf("%d mails wait in the spool of sendmail", s.Mails), s.Oldest
	}
	if s.Later != "" {
		w.Why, w.Do = s.Later, "see to the cause; it is tried again by itself, and its sender is told after delivery.max_age"
	}
	if s.Mails > 0 && now.Sub(s.Oldest) > spoolLate {
		w.Level = admin.LevelWarning
	}
	if s.Err != nil {
		w.Level, w.Why, w.Do = admin.LevelWarning, s.Err.Error(), "'smtp2rest check' says what the directory has to be like; docs/send.md has the commands"
		if errors.Is(s.Err, smtpd.ErrNoLocal) {
			w.Do = "let a [[listener]] take mail from this machine, as the default one on 127.0.0.1:2525 does"
		}
		if w.What == "" {
			w.What, w.Since = "mail that sendmail keeps is not handed over", s.Since.Round(0).UTC()
		}
	}
	if w.What != "" {
		list = append(list, w)
	}
	if s.Unused != nil {
		list = append(list, admin.Warning{Level: admin.LevelInfo, Cause: admin.CauseSpool, What: "mail that sendmail keeps in " + spool.DefaultDir + " is not for this relay",
			Why: s.Unused.Error(), Do: "set sendmail.spool to \"none\", or to a directory of this relay's user"})
	}
	if s.Aside > 0 {
		list = append(list, admin.Warning{Level: admin.LevelInfo, Cause: admin.CauseSpoolAside, Count: int64(s.Aside), What: fmt.Sprintf("%d files in %s are no mail of sendmail", s.Aside, s.Dir),
			Why: "somebody made or changed them; their names begin with bad-", Do: "look at their owners, and remove them; after 30 days they are removed"})
	}
	return list
}
