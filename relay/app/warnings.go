package app

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/smtp2rest/smtp2rest/relay"
	"github.com/smtp2rest/smtp2rest/relay/admin"
	"github.com/smtp2rest/smtp2rest/relay/archive"
	"github.com/smtp2rest/smtp2rest/relay/bounce"
	"github.com/smtp2rest/smtp2rest/relay/config"
	"github.com/smtp2rest/smtp2rest/relay/deliver"
	"github.com/smtp2rest/smtp2rest/relay/intake"
	"github.com/smtp2rest/smtp2rest/relay/pace"
	"github.com/smtp2rest/smtp2rest/relay/queue"
	"github.com/smtp2rest/smtp2rest/relay/store"
	"github.com/smtp2rest/smtp2rest/relay/webhook"
)

// warner returns what an operator should know of a part, at a time.
type warner func(ctx context.Context, now time.Time) []admin.Warning

// onStatus adds what a part has to say to 'smtp2rest status'.
func (d *daemon) onStatus(w warner) { d.warnings = append(d.warnings, w) }

// about names the account in warnings about one, where there are several.
func (d *daemon) about(account string, warnings []admin.Warning) []admin.Warning {
	for i := range warnings {
		if d.several() {
			warnings[i].Account = relay.AccountName(account)
		}
	}
	return warnings
}

// status is what all parts have to say. What the queue and the pacer show by themselves
// is for relay/admin.
func (d *daemon) status(ctx context.Context, now time.Time) []admin.Warning {
	var warnings []admin.Warning
	if err := d.health.live(ctx); err != nil {
		warnings = append(warnings, admin.Warning{Level: admin.LevelTrouble, Cause: admin.CauseStuck, What: "queued mail is not sent", Why: err.Error(),
			Do: "see to the storage; if that is well, restart smtp2rest, and report it with the log"})
	}
	for _, w := range d.warnings {
		warnings = append(warnings, w(ctx, now)...)
	}
	return warnings
}

// manyWait is how many mails may wait for memory before that is more than a
// moment's crowd.
const manyWait = 10

// seeTo says what an operator looks at when the store fails.
func seeTo(p store.Place) string {
	if p.Dir == "" {
		return "see to the database " + p.Name + " and the way to it"
	}
	return "see to the disk of " + p.Dir
}

// memoryWarnings tell of mails that wait for memory.
func memoryWarnings(waiting int) []admin.Warning {
	if waiting <= manyWait {
		return nil
	}
	return []admin.Warning{{Level: admin.LevelWarning, Cause: admin.CauseMemory, What: "some clients are answered 452 and have to come again",
		Why: fmt.Sprintf("%d mails wait for memory (limits.memory)", waiting),
		Do:  "raise limits.memory if the machine has more, or let fewer or smaller mails come at once"}}
}

// untoldFor is how long an operator is told that somebody could not be.
const untoldFor = 24 * time.Hour

// untoldWarnings tell of recipients that failed without anybody hearing of it.
func untoldWarnings(tally *bounce.Tally, since, now time.Time) []admin.Warning {
	n, latest := tally.Untold()
	if n == 0 || now.Sub(latest) >= untoldFor {
		return nil
	}
	return []admin.Warning{{Level: admin.LevelInfo, Cause: admin.CauseUntold, What: fmt.Sprintf("nobody was told of %d failed recipients since the start", n), Since: since.Round(0).UTC(),
		Why: "their sender has no address that can receive mail and there is no bounce.postmaster, or was told of bounce.per_hour failures already; the latest was at " + latest.UTC().Format(time.RFC3339),
		Do:  "the log says of which mails: 'given up', or 'no sender to tell'"}}
}

// archiveWarnings tell of copies that the archive did not get.
func archiveWarnings(copies *archive.Tally, since, now time.Time) []admin.Warning {
	n, latest := copies.Missed()
	if n == 0 || now.Sub(latest) >= untoldFor {
		return nil
	}
	what := "1 copy for the archive was not sent since the start"
	if n > 1 {
		what = fmt.Sprintf("%d copies for the archive were not sent since the start", n)
	}
	return []admin.Warning{{Level: admin.LevelWarning, What: what, Since: since.Round(0).UTC(),
		Why: "the API refused it, it bounced, or the queue could not take it; the mails themselves went their way; the latest was at " + latest.UTC().Format(time.RFC3339),
		Do:  "see that archive_bcc receives mail and is not suppressed ('smtp2rest suppressions'); the log names the mails (copy_of), and 'smtp2rest queue retry' sends copies that failed again"}}
}

// socketWarnings tell of sockets that systemd opened and nobody listens on.
func socketWarnings(unused []string) []admin.Warning {
	if len(unused) == 0 {
		return nil
	}
	names := strings.Join(unused, ", ")
	return []admin.Warning{{Level: admin.LevelWarning, Cause: admin.CauseSocket, What: "clients that connect to the socket " + names + " of systemd hear nothing",
		Why: "no [[listener]] has its address, or the address \"systemd:" + unused[0] + "\"", Do: "'systemctl disable --now' the .socket unit, or give a [[listener]] its address; then restart smtp2rest"}}
}

// mostNamed is how many clients a warning names.
const mostNamed = 5

// refusedFilesWarnings tell whose mail was refused for an attachment in the last day. The
// client was told, but it may be a program that nobody watches.
func refusedFilesWarnings(clients []intake.RefusedFiles, since, now time.Time) []admin.Warning {
	var names []string
	mails := 0
	for _, c := range clients {
		if now.Sub(c.Latest) >= untoldFor {
			continue
		}
		mails += c.Mails
		if name := cmp.Or(c.Client, "others"); len(names) < mostNamed {
			names = append(names, fmt.Sprintf("%s (%d)", name, c.Mails))
		}
	}
	if mails == 0 {
		return nil
	}
	what := "1 mail was refused for an attachment since the start"
	if mails > 1 {
		what = fmt.Sprintf("%d mails were refused for an attachment since the start", mails)
	}
	return []admin.Warning{{Level: admin.LevelInfo, Cause: admin.CauseRefusedFiles, What: what, Since: since.Round(0).UTC(),
		Why: "mail.attachments refuses them; the clients with the most are " + strings.Join(names, ", "),
		Do:  "mail.attachments = \"strip\" sends such mail without its files and says so in it; \"send\" needs fields that the provider names"}}
}

// engineWarnings tell of a queue whose mail is kept and cannot be sent.
func engineWarnings(e *deliver.Group, place store.Place) []admin.Warning {
	since, err := e.Trouble()
	if err == nil {
		return nil
	}
	return []admin.Warning{{Level: admin.LevelTrouble, Cause: admin.CauseEngine, What: "mail is kept and cannot be sent from the queue", Why: err.Error(), Since: since.Round(0).UTC(),
		Do: seeTo(place) + "; if the queue is damaged, stop smtp2rest: its next start says what to do"}}
}

// orphanWarnings tell of mail that waits for an account that there is not any more.
func orphanWarnings(ctx context.Context, q store.Queue, c *config.Config) []admin.Warning {
	counts, err := q.Accounts(ctx)
	if err != nil {
		return nil // relay/admin says so
	}
	var warnings []admin.Warning
	for _, name := range slices.Sorted(maps.Keys(counts)) {
		if c.Account(name) != nil {
			continue
		}
		warnings = append(warnings, admin.Warning{Level: admin.LevelTrouble, Cause: admin.CauseOrphans, Account: name, Count: int64(counts[name]), What: heldText(counts[name]),
			Why: "they belong to account " + strconv.Quote(name) + ", which is not in the configuration",
			Do:  "put the account back, or give them to another: 'smtp2rest queue reassign --account " + name + " --to default'"})
	}
	return warnings
}

func heldText(mails int) string {
	if mails == 1 {
		return "1 mail is held"
	}
	return fmt.Sprintf("%d mails are held", mails)
}

// logOrphans says it at the start as well, because nobody may look at the status.
func logOrphans(log *slog.Logger, warnings []admin.Warning) {
	for _, w := range warnings {
		log.Error(w.What, "account", w.Account, "why", w.Why, "do", w.Do)
	}
}

// forbidden is forbiddenWarnings of an account.
func (d *daemon) forbidden(ctx context.Context, a account, q store.Queue) []admin.Warning {
	return d.about(a.name, forbiddenWarnings(ctx, a.pace, q))
}

// forbiddenWarnings tell of mail that the API answers with 403 while it takes others.
// It is kept until the API takes it or somebody drops it.
func forbiddenWarnings(ctx context.Context, p *pace.Pacer, q store.Queue) []admin.Warning {
	if p.State().Breaker.Open {
		return nil // its own note says it
	}
	n, latest := 0, ""
	for _, id := range p.Forbidden() {
		m, err := q.Get(ctx, id)
		if err == nil && slices.ContainsFunc(m.Recipients, func(r queue.Recipient) bool { return r.State.Open() }) {
			n, latest = n+1, id
		}
	}
	if n == 0 {
		return nil
	}
	what := "1 mail waits"
	if n > 1 {
		what = fmt.Sprintf("%d mails wait", n)
	}
	return []admin.Warning{{Level: admin.LevelWarning, Cause: admin.CauseForbiddenMail, What: what,
		Why: "the API forbids it (HTTP 403), and takes others",
		Do: "'smtp2rest queue show " + latest + "' says whose it is; the sender's domain may not be verified with the provider. " +
			"It is tried again until the API takes it, and never bounced for this; or drop it"}}
}

// recordsWarnings tell of records that are not kept. Mail is not touched by it, and
// so nothing else would show it.
func recordsWarnings(r store.Records, place store.Place) []admin.Warning {
	since, damaged, err := r.Trouble()
	switch {
	case damaged:
		return []admin.Warning{{Level: admin.LevelTrouble, Cause: admin.CauseRecords, What: "history, suppressions and the provider's events are not kept any more", Why: err.Error(), Since: since.Round(0).UTC(),
			Do: "restart smtp2rest: it sets the file aside and begins a new one, without the suppressions that were learnt; docs/operations.md says how to bring them over"}}
	case err != nil:
		return []admin.Warning{{Level: admin.LevelWarning, Cause: admin.CauseRecords, What: "history and suppressions are not kept", Why: err.Error(), Since: since.Round(0).UTC(),
			Do: seeTo(place) + "; mail is not touched, and it goes on by itself"}}
	}
	return nil
}

// storageWarnings tell of a queue that takes no mail, or soon will not.
func storageWarnings(ctx context.Context, check *storageCheck, q store.Queue, place store.Place, c config.Queue) []admin.Warning {
	if since, err := check.check(ctx); err != nil {
		return []admin.Warning{{Level: admin.LevelTrouble, Cause: admin.CauseStorage, What: "no mail can be queued or sent from the queue", Why: err.Error(), Since: since.Round(0).UTC(),
			Do: seeTo(place) + "; the relay goes on by itself", Full: true}}
	}
	var warnings []admin.Warning
	free, least, err := q.Space()
	why := fmt.Sprintf("the disk of %s has %d MiB left, and %d MiB are kept free", place.Name, free>>20, least>>20)
	switch {
	case err != nil: // the disk of a database is for those to watch who run it
	case free <= least:
		warnings = append(warnings, admin.Warning{Level: admin.LevelTrouble, Cause: admin.CauseDisk, What: "what the API does not take at once is answered 452", Why: why,
			Do: "make room on it, or lower queue.min_free", Full: true})
	case free <= 2*least:
		warnings = append(warnings, admin.Warning{Level: admin.LevelWarning, Cause: admin.CauseDisk, What: "soon no mail can be queued", Why: why, Do: "make room on it"})
	}
	if stats, err := q.Stats(ctx); err == nil { // else relay/admin says so
		warnings = append(warnings, fullWarnings(stats, c)...)
	}
	return warnings
}

// nearlyFull is the part of a bound from which on somebody should know.
const nearlyFull = 0.9

// fullWarnings tell of a queue that comes near its bounds.
func fullWarnings(stats queue.Stats, c config.Queue) []admin.Warning {
	waits := "find out why mail waits; 'smtp2rest queue' says it for each; or raise "
	failed := "'smtp2rest queue list --state failed' says why; retry or drop them, or raise "
	kept := "until they are dropped"
	if c.KeepFailed > 0 {
		kept = "for queue.keep_failed"
	}
	size := waits
	if stats.FailedBytes > stats.Bytes/2 {
		size = fmt.Sprintf("%d of them are of failed mail: ", stats.FailedBytes) + failed
	}
	var warnings []admin.Warning
	for _, bound := range []struct {
		what        string
		used, limit int64
		setting, do string
	}{
		{"waiting mails", stats.Mails - stats.FailedMails, int64(c.MaxMails), "queue.max_mails", waits},
		{"bytes", stats.Bytes, c.MaxBytes, "queue.max_size", size},
	} {
		if bound.limit > 0 && float64(bound.used) >= nearlyFull*float64(bound.limit) {
			warnings = append(warnings, admin.Warning{Level: admin.LevelWarning, Cause: admin.CauseQueueFull, What: "when the queue is full, what the API does not take at once is answered 452",
				Why: fmt.Sprintf("the queue holds %d of the %d %s that %s allows", bound.used, bound.limit, bound.what, bound.setting),
				Do:  bound.do + bound.setting, Full: bound.used >= bound.limit})
		}
	}
	if stats.FailedMails >= manyFailed {
		warnings = append(warnings, admin.Warning{Level: admin.LevelWarning, Cause: admin.CauseFailedMany, What: "they take room, and new mail is not refused for them while there is some",
			Why: fmt.Sprintf("%d mails failed, and are kept %s", stats.FailedMails, kept),
			Do:  "'smtp2rest queue list --state failed' says why; retry or drop them, or lower queue.keep_failed"})
	}
	return warnings
}

// manyFailed is how many failed mails are more than somebody looks through.
const manyFailed = 10_000

const (
	// forgedFor is how long nothing but forgeries may come before somebody
	// should compare secrets, and forgedMany how many they must be: anybody can
	// send some.
	forgedFor  = 10 * time.Minute
	forgedMany = 5
	// forgedOld is when they are no news any more.
	forgedOld = 6 * time.Hour
)

// eventWarnings tell of an endpoint that learns nothing.
func eventWarnings(s webhook.Standing, account string, now time.Time) []admin.Warning {
	setting, register := "webhook.secret_file", "'smtp2rest webhook register'"
	if account != "" {
		setting, register = "webhook_secret_file of account "+strconv.Quote(account), "'smtp2rest webhook register --account "+account+"'"
	}
	var warnings []admin.Warning
	if s.Unkept != nil {
		warnings = append(warnings, admin.Warning{Level: admin.LevelTrouble, Cause: admin.CauseEvents, What: "the provider's events cannot be kept, and it was told to send them again", Why: s.Unkept.Error(), Since: s.UnkeptSince.Round(0).UTC(),
			Do: "see to the storage; mail is not affected, but addresses that bounce are not learnt"})
	}
	if s.Forged >= forgedMany && now.Sub(s.ForgedSince) >= forgedFor && now.Sub(s.ForgedLast) < forgedOld {
		warnings = append(warnings, admin.Warning{Level: admin.LevelWarning, Cause: admin.CauseForged, What: "the provider's events may be refused",
			Why: fmt.Sprintf("%d requests to the webhook in a row had no good signature", s.Forged), Since: s.ForgedSince.Round(0).UTC(),
			Do: "see that " + setting + " has the provider's secret; " + register + " gets a new one, and 'smtp2rest reload' takes it"})
	}
	return warnings
}
