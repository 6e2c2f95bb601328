package admin

import (
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/smtp2rest/smtp2rest/relay/pace"
)

// longPause is the shortest pause that is a warning.
const longPause = 5 * time.Minute

// warnings says what stands in the way of mail.
func (v view) warnings(s Status) []Warning {
	open := s.Queue.Waiting + s.Queue.Sending
	list := []Warning{}
	add := func(level string, w Warning) {
		w.Level = level
		list = append(list, w)
	}
	if !v.running && open > 0 {
		add(LevelTrouble, Warning{Cause: CauseStopped, What: waits(open), Why: "no daemon runs on this queue", Do: "start smtp2rest"})
	}
	for _, a := range v.all() {
		what := v.allMail(open)
		if len(v.others) > 0 {
			what = "mail" + v.ofAccount(a.name) + " waits"
		}
		list = append(list, v.paceWarnings(a.pace, v.nameOf(a.name), what)...)
	}
	for _, a := range v.all() {
		for _, d := range a.warming {
			if d.Full() {
				add(LevelInfo, Warning{Cause: CauseWarming, Account: v.nameOf(a.name), What: "ordinary mail" + v.ofAccount(a.name) + " from " + text(d.Domain) + " waits", Why: text(d.Why()), Until: utc(d.Next),
					Do: "nothing: it goes on by itself the next day"})
			}
		}
	}
	if n := s.Queue.Held; n > 0 {
		add(LevelInfo, Warning{Cause: CauseHeld, Count: n, What: recipients(n) + " held", Why: "stopped by an operator", Do: "'smtp2rest queue release --all' lets them go"})
	}
	if n := s.Queue.Failed; n > 0 {
		why := "given up; their senders were told where they could be"
		if s.Queue.Unbounced > 0 {
			why = fmt.Sprintf("given up; for %d the sender is still to be told", s.Queue.Unbounced)
		}
		add(LevelInfo, Warning{Cause: CauseFailed, Count: n, What: recipients(n) + " failed", Why: why,
			Do: "'smtp2rest queue list --state failed' says why; then retry or drop them"})
	}
	if d := s.LastDay; d.any() {
		add(LevelInfo, Warning{Cause: CauseBadNews, What: "in the last day " + d.words(), Why: "the provider told so after it had taken the mail",
			Do: "'smtp2rest history --state bounced,complained --since 2d' says whose mail it was, and trace whether its sender was told"})
	}
	return list
}

// nameOf is the name of an account, where there are several.
func (v view) nameOf(name string) string {
	if len(v.others) == 0 {
		return ""
	}
	return name
}

// Of returns the part of a status that is about one account or about the whole relay, and
// judges that alone; counts are the relay's.
func (s Status) Of(account string) (Status, error) {
	i := slices.IndexFunc(s.Accounts, func(a Account) bool { return a.Name == account })
	if i < 0 {
		return s, fmt.Errorf("%w: there is no account %q", ErrBadRequest, account)
	}
	s.Accounts, s.Pace = s.Accounts[i:i+1], s.Accounts[i].Pace
	s.Warming = slices.DeleteFunc(slices.Clone(s.Warming), func(w Warming) bool { return w.Account != account })
	s.Warnings = slices.DeleteFunc(slices.Clone(s.Warnings), func(w Warning) bool { return w.Account != "" && w.Account != account })
	switch {
	case s.State == StateStopped:
	case len(s.Warnings) == 0 || s.Warnings[0].Level == LevelInfo:
		s.State, s.Summary = StateFine, "mail of account "+account+" flows"
	default:
		s.State, s.Summary = StateDegraded, s.Warnings[0].Why+"; "+s.Warnings[0].What
	}
	return s, nil
}

// ofAccount names an account behind a word, where there are several.
func (v view) ofAccount(name string) string {
	if len(v.others) == 0 {
		return ""
	}
	return " of account " + text(name)
}

// paceWarnings says what of an account's mail waits, and why.
func (v view) paceWarnings(p pace.State, account, what string) []Warning {
	switch b := p.Breaker; {
	case b.Open:
		return []Warning{{Level: LevelTrouble, Cause: breakerCause(b.Why), Account: account, What: what, Why: breakerWhy(b), Since: utc(b.Since), Until: utc(b.ProbeAt), Do: breakerDo(b.Why)}}
	case p.PausedUntil.After(v.now):
		level := LevelInfo
		if p.PausedUntil.Sub(v.now) > longPause {
			level = LevelWarning
		}
		return []Warning{{Level: level, Cause: CausePaused, Account: account, What: what, Why: string(pace.Paused), Until: utc(p.PausedUntil), Do: "nothing: mail goes on by itself"}}
	}
	return nil
}

func breakerCause(why pace.Why) string {
	switch why {
	case pace.KeyBad:
		return CauseKeyRefused
	case pace.Forbidden:
		return CauseForbidden
	default:
		return CauseAPIDown
	}
}

// breakerWhy says why mail waits, with what the API or the network said.
func breakerWhy(b pace.BreakerState) string {
	if said := saidText(b.Last); said != "" {
		return fmt.Sprintf("%s (%s)", b.Why, said)
	}
	return string(b.Why)
}

// breakerDo says what an operator can do about it.
func breakerDo(why pace.Why) string {
	switch why {
	case pace.KeyBad:
		return "put the right API key in place, then 'smtp2rest reload' (a key from the environment or a systemd credential takes a restart); no mail is lost or bounced for this"
	case pace.Forbidden:
		return "if it takes no mail at all, see to the rights of the API key; if it is one sender's mail, 'smtp2rest queue' says whose, and that sender's domain may not be verified with the provider; others' mail goes on within minutes, and none is lost or bounced for this"
	default:
		return "nothing, if the provider knows of it: mail goes out by itself when the API is back; the log has the errors"
	}
}

func (d *LastDay) any() bool { return d != nil && *d != LastDay{} }

// words describes the day in a part of a sentence: "3 recipients bounced".
func (d *LastDay) words() string {
	var parts []string
	if d.Bounced > 0 {
		parts = append(parts, recipients(d.Bounced)+" bounced")
	}
	if d.Complained > 0 {
		who := recipients(d.Complained)
		if d.Bounced > 0 {
			who = strconv.FormatInt(d.Complained, 10)
		}
		parts = append(parts, who+" complained")
	}
	return strings.Join(parts, " and ")
}

// sortWarnings puts the most urgent first.
func sortWarnings(list []Warning) {
	levels := []string{LevelTrouble, LevelWarning, LevelInfo}
	slices.SortStableFunc(list, func(a, b Warning) int {
		return slices.Index(levels, a.Level) - slices.Index(levels, b.Level)
	})
}

// judge returns the state of the relay and a sentence about it. The warnings in s are
// sorted.
func (v view) judge(s Status) (state, summary string) {
	open := s.Queue.Waiting + s.Queue.Sending
	switch {
	case !v.running && open == 0:
		return StateStopped, "no daemon runs; nothing waits"
	case !v.running:
		return StateStopped, "no daemon runs; " + waits(open) + "; nothing is lost"
	case len(s.Warnings) > 0 && s.Warnings[0].Level == LevelTrouble:
		summary = v.because(s.Warnings[0])
		if !v.unkept {
			summary += "; nothing is lost"
		}
		return StateDegraded, summary
	case len(s.Warnings) > 0 && s.Warnings[0].Level == LevelWarning:
		return StateDegraded, v.because(s.Warnings[0])
	case v.pace.PausedUntil.After(v.now):
		return StateFine, fmt.Sprintf("%s; %s until %s; mail goes on by itself", pace.Paused, v.allMail(open), v.clock(v.pace.PausedUntil))
	}
	summary = "mail flows; nothing waits"
	if open > 0 {
		summary = "mail flows; " + waits(open)
		if !s.Queue.Oldest.IsZero() {
			summary += ", the oldest since " + v.clock(s.Queue.Oldest)
		}
	}
	if s.LastDay.any() {
		summary += "; in the last day " + s.LastDay.words()
	}
	return StateFine, summary
}

// because puts a warning in one line: the cause, since when, and what it does.
func (v view) because(w Warning) string {
	words := w.Why
	if !w.Since.IsZero() {
		words += " since " + v.clock(w.Since)
	}
	return words + "; " + w.What
}

// clock is a time for a person where the relay is. A time of today has no date.
func (v view) clock(t time.Time) string {
	t, now := t.Local(), v.now.Local()
	if t.YearDay() == now.YearDay() && t.Year() == now.Year() {
		return t.Format("15:04")
	}
	return t.Format("2006-01-02 15:04")
}

func recipients(n int64) string {
	if n == 1 {
		return "1 recipient"
	}
	return fmt.Sprintf("%d recipients", n)
}

func waits(n int64) string {
	if n == 1 {
		return "1 recipient waits"
	}
	return fmt.Sprintf("%d recipients wait", n)
}

func (v view) allMail(open int64) string {
	switch {
	case v.unkept:
		return "mail that comes now is answered 451, because there is no queue"
	case open == 0 && v.full:
		return "mail that comes now is answered 452, because the queue takes none"
	case open == 0:
		return "mail that comes now will wait"
	}
	return waits(open)
}
