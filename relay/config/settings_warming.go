package config

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Warming is how one sender domain is warmed.
type Warming struct {
	Domain string    // never empty
	Begin  time.Time // midnight in UTC
	First  int       // cap of the first day; at least 1
	Growth float64   // from one day to the next; at least 1
	Until  int       // the cap at which the warming ends; 0 is never
	// Table is the caps of the days instead of First and Growth, if there are
	// any: from 1 on, none below the one before, but the last may be 0, no cap.
	Table  []int
	Urgent []string // envelope senders, or "@domain"
}

const maxCap = 1_000_000_000

func warmingSettings(w *Warming, prefix string) []setting {
	return []setting{
		{path: prefix + ".domain", value: textValue{&w.Domain, checkDomain}, example: `"mail.example.com"`,
			doc: "The sender domain. It must be set."},
		{path: prefix + ".begin", value: dateValue{&w.Begin}, example: `"2026-12-01"`,
			doc: "The first day, in UTC. It must be set."},
		{path: prefix + ".first", value: countValue{&w.First, 1, maxCap}, def: int64(50),
			doc: "How many mails the domain may send on the first day."},
		{path: prefix + ".growth", value: rateValue{&w.Growth, 1, 100}, def: 1.5,
			doc: "How many times as many it may send on each further day."},
		{path: prefix + ".until", value: countValue{&w.Until, 0, maxCap}, def: int64(20000),
			doc: "The warming is over on the day that would allow this many. 0 is never, which is the\ndefault with a table."},
		{path: prefix + ".table", value: capsValue{&w.Table}, def: []any{},
			doc: "The first day's number, the second day's and so on, instead of first and growth. The\nlast one stays; a 0 at the end is no bound any more."},
		{path: prefix + ".urgent", value: sendersValue{&w.Urgent}, def: []any{},
			doc: "Envelope senders whose mail is never held back, or \"@domain\" for all of a domain."},
	}
}

// deriveWarming keeps the ramp's default end from ending a table.
func (l *loader) deriveWarming() {
	all := l.cfg.Warming
	for i := range all {
		if s := l.find(prefixOf("warming", i, len(all)) + ".until"); len(all[i].Table) > 0 && s.origin == "default" {
			all[i].Until = 0
		}
	}
}

func (l *loader) validateWarming(i int) {
	all := l.cfg.Warming
	one, prefix := all[i], prefixOf("warming", i, len(all))
	l.validateWarmingDomain(i, prefix)
	if one.Begin.IsZero() && !l.bad[prefix+".begin"] {
		l.problem(prefix+".begin", `is not set; write the first day, as in "2026-12-01"`)
	}
	if l.cfg.Queue.Mode == NoQueue {
		l.problem(prefix, "what is over a day's number waits in the queue, and queue.mode is \"none\"; change it, or leave the table out")
	}
	first, path := one.First, prefix+".first"
	if len(one.Table) > 0 {
		first, path = one.Table[0], prefix+".table"
		if l.find(prefix+".first").origin == "file" || l.find(prefix+".growth").origin == "file" {
			l.warn("%s: there is a table, so that first and growth count for nothing", prefix)
		}
	}
	if one.Until > 0 && first >= one.Until && !l.bad[path] && !l.bad[prefix+".until"] {
		l.problem(path, "the first day may send %d, and %s.until ends the warming at %d: it would be over before it begins", first, prefix, one.Until)
	}
}

func (l *loader) validateWarmingDomain(i int, prefix string) {
	domain, path := l.cfg.Warming[i].Domain, prefix+".domain"
	if l.bad[path] {
		return
	}
	if domain == "" {
		l.problem(path, `is not set; write the domain whose mail is held back, as in "mail.example.com"`)
		return
	}
	for _, earlier := range l.cfg.Warming[:i] {
		if strings.EqualFold(earlier.Domain, domain) {
			l.problem(path, "found %s, which another table has already", show(domain))
		}
	}
	own := func(d string) bool { return strings.EqualFold(d, domain) }
	if !slices.ContainsFunc(l.cfg.Sender.Domains, own) && l.cfg.Sender.Email != "" {
		l.warn("%s: %s is not among sender.domains: nothing is sent from it", prefix, domain)
	}
}

type dateValue struct{ p *time.Time }

// set also takes a date without quotes, which TOML has and which comes as
// midnight in the zone of this machine. A time of day is refused: days are UTC's.
func (d dateValue) set(v any) error {
	const want = `write a date in quotes, as in "2026-12-01"`
	s, ok := v.(string)
	if at, isTime := v.(time.Time); isTime && at.Equal(time.Date(at.Year(), at.Month(), at.Day(), 0, 0, 0, 0, at.Location())) {
		s, ok = at.Format(time.DateOnly), true
	}
	if !ok {
		return wrongType(v, want)
	}
	day, err := time.Parse(time.DateOnly, s)
	if err != nil || day.IsZero() {
		return fmt.Errorf("found %s; %s", show(s), want)
	}
	*d.p = day
	return nil
}

func (d dateValue) text() string { return quote(d.p.Format(time.DateOnly)) }

type capsValue struct{ p *[]int }

func (c capsValue) set(v any) error {
	const want = "write a list of whole numbers, as in [50, 100, 500]"
	list, ok := v.([]any)
	if !ok {
		return wrongType(v, want)
	}
	caps := make([]int, len(list))
	for i, item := range list {
		n, ok := item.(int64)
		switch last := i > 0 && i == len(list)-1; {
		case !ok:
			return fmt.Errorf("item %d of the list is %s; %s", i+1, kindOf(item), want)
		case n == 0 && last: // no cap from here on
		case n < 1 || n > maxCap:
			return fmt.Errorf("found %d; allowed is from 1 to %d, and 0 at the end", n, maxCap)
		case i > 0 && int(n) < caps[i-1]:
			return fmt.Errorf("found %d after %d; no day may send less than the one before", n, caps[i-1])
		}
		caps[i] = int(n)
	}
	*c.p = caps
	return nil
}

func (c capsValue) text() string {
	list := make([]string, len(*c.p))
	for i, n := range *c.p {
		list[i] = strconv.Itoa(n)
	}
	return "[" + strings.Join(list, ", ") + "]"
}

type sendersValue struct{ p *[]string }

func (u sendersValue) set(v any) error {
	list, err := textList(v, `write a list of addresses, as in ["alerts@mail.example.com"]`)
	if err != nil {
		return err
	}
	for _, s := range list {
		if s == "" {
			return errors.New(`found ""; write an address, or "@" and a domain`)
		}
		check := checkEmail
		if domain, ok := strings.CutPrefix(s, "@"); ok {
			s, check = domain, checkDomain
		}
		if err := check(s); err != nil {
			return err
		}
	}
	*u.p = list
	return nil
}

func (u sendersValue) text() string { return quoteList(*u.p) }
