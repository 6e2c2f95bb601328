package web

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/smtp2rest/smtp2rest/relay/admin"
	"github.com/smtp2rest/smtp2rest/relay/queue"
)

// pageSize is how many recipients a page of the queue lists.
const pageSize = 100

// mostCounted is how many recipients are counted before a change of all that match.
const mostCounted = 20_000

// change is one thing that can be done with recipients of the queue.
type change struct {
	Name, Verb, Past string
	Means            string // what it does, for the confirmation
	Danger           bool
}

func changes() []change {
	return []change{
		{Name: "retry", Verb: "Retry", Past: "Recipients to be tried now", Means: "They are tried as soon as their turn comes, and have all their time again."},
		{Name: "hold", Verb: "Hold", Past: "Recipients held", Means: "They are not tried until somebody releases them."},
		{Name: "release", Verb: "Release", Past: "Recipients released", Means: "Those that are held are tried again."},
		{Name: "drop", Verb: "Drop", Past: "Recipients dropped", Means: "They are deleted and never sent. Nobody is told, and it cannot be undone.", Danger: true},
		{Name: "reassign", Verb: "Reassign", Past: "Mails given to another account", Means: "The mails of these recipients are given to another account."},
	}
}

func changeOf(name string) (change, bool) {
	for _, c := range changes() {
		if c.Name == name {
			return c, true
		}
	}
	return change{}, false
}

// selection is the form by which a list is filtered. It is the query of the page, too.
type selection struct {
	States                     []string
	Sender, Recipient, Account string
	ID                         string
	Older, Newer               string // an age, such as "2h"
	Cursor                     string
}

func selectionOf(q url.Values) selection {
	return selection{
		States: slices.DeleteFunc(slices.Clone(q["state"]), func(s string) bool { return s == "" }),
		Sender: strings.TrimSpace(q.Get("sender")), Recipient: strings.TrimSpace(q.Get("recipient")), Account: strings.TrimSpace(q.Get("account")),
		ID: strings.TrimSpace(q.Get("id")), Older: strings.TrimSpace(q.Get("older")), Newer: strings.TrimSpace(q.Get("newer")), Cursor: q.Get("cursor"),
	}
}

// Fields are what is selected, for a form or a link. The cursor is not part of it.
func (s selection) Fields() url.Values {
	q := url.Values{}
	for _, state := range s.States {
		q.Add("state", state)
	}
	for name, value := range map[string]string{"sender": s.Sender, "recipient": s.Recipient, "account": s.Account, "id": s.ID, "older": s.Older, "newer": s.Newer} {
		if value != "" {
			q.Set(name, value)
		}
	}
	return q
}

// Has reports whether a state is selected.
func (s selection) Has(state string) bool { return slices.Contains(s.States, state) }

// Words describes the selection.
func (s selection) Words() string {
	var parts []string
	add := func(name, value string) {
		if value != "" {
			parts = append(parts, name+" "+value)
		}
	}
	add("state", strings.Join(s.States, " or "))
	if len(parts) == 0 {
		parts = append(parts, "not sent")
	}
	if s.Has(anyState) {
		parts = nil
	}
	add("sender", s.Sender)
	add("recipient", s.Recipient)
	add("account", s.Account)
	add("mail", s.ID)
	add("older than", s.Older)
	add("younger than", s.Newer)
	return strings.Join(parts, ", ")
}

// anyState is the name of all states, sent ones as well. Without a state those that are
// not sent are meant, as on the command line.
const anyState = "any"

func unsent() []string {
	return slices.DeleteFunc(stateNames(), func(s string) bool { return s == queue.Sent.String() })
}

// filter is the selection for relay/admin.
func (s selection) filter(now time.Time) (admin.Filter, error) {
	states := s.States
	switch {
	case len(states) == 0:
		states = unsent()
	case s.Has(anyState):
		states = nil
	}
	f := admin.Filter{ID: s.ID, States: states, Sender: s.Sender, Recipient: s.Recipient, Account: s.Account, Limit: pageSize, Cursor: s.Cursor}
	for _, age := range []struct {
		text string
		at   *time.Time
	}{{s.Older, &f.Until}, {s.Newer, &f.From}} {
		if age.text == "" {
			continue
		}
		d, err := parseAge(age.text)
		if err != nil {
			return f, err
		}
		*age.at = now.Add(-d)
	}
	return f, nil
}

// parseAge reads a time such as 90m, 2h or 3d.
func parseAge(s string) (time.Duration, error) {
	if days, ok := strings.CutSuffix(s, "d"); ok {
		if n, err := strconv.Atoi(days); err == nil && n >= 0 && n < 100_000 {
			return time.Duration(n) * 24 * time.Hour, nil
		}
	}
	d, err := time.ParseDuration(s)
	if err != nil || d < 0 {
		return 0, fmt.Errorf("%w: %q is no age; write it like 90m, 2h or 3d", admin.ErrBadRequest, s)
	}
	return d, nil
}

// list shows a page of the queue.
func (s *Site) list(v *visit) error {
	chosen := selectionOf(v.r.URL.Query())
	f, err := chosen.filter(time.Now())
	if err != nil {
		return err
	}
	found, err := s.find(v.r.Context(), f)
	if err != nil {
		return err
	}
	status, err := s.opt.Admin.Status(v.r.Context())
	if err != nil {
		return err
	}
	next := ""
	if found.Cursor != "" {
		q := chosen.Fields()
		q.Set("cursor", found.Cursor)
		next = "queue?" + q.Encode()
	}
	v.show(http.StatusOK, "queue", struct {
		selection
		States   []string
		Entries  []admin.Entry
		Next     string
		Changes  []change
		Accounts []admin.Account
		Done     string
	}{chosen, stateNames(), found.Entries, next, changes(), status.Accounts, done(v)})
	return nil
}

// lookTime is how long one page of the queue is looked for.
const lookTime = 3 * time.Second

// find lists one page. A single call of List looks at a part of the queue alone, in which
// there may be nothing that matches.
func (s *Site) find(ctx context.Context, f admin.Filter) (found admin.Page, err error) {
	for began := time.Now(); ; {
		part, err := s.opt.Admin.List(ctx, f)
		if err != nil {
			return found, err
		}
		found.Entries, found.Cursor = append(found.Entries, part.Entries...), part.Cursor
		if f.Cursor, f.Limit = part.Cursor, pageSize-len(found.Entries); f.Cursor == "" || f.Limit <= 0 || time.Since(began) >= lookTime {
			return found, nil
		}
	}
}

func stateNames() []string {
	var names []string
	for _, s := range queue.States() {
		names = append(names, s.String())
	}
	return names
}

// changeQueue asks whether a change is meant, with how many recipients it changes, and
// makes it when the answer came.
func (s *Site) changeQueue(v *visit) error {
	form := v.r.PostForm
	what, ok := changeOf(form.Get("change"))
	if !ok {
		return fmt.Errorf("%w: choose what to do", admin.ErrBadRequest)
	}
	if what.Name == "reassign" && form.Get("to") == "" {
		return fmt.Errorf("%w: choose the account that the mails are given to", admin.ErrBadRequest)
	}
	chosen, all, items := selectionOf(form), form.Get("which") == "all", form["item"]
	if !all && len(items) == 0 {
		return fmt.Errorf("%w: choose at least one recipient, or all that match", admin.ErrNothingSelected)
	}
	if len(items) > admin.MaxPage {
		return fmt.Errorf("%w: %d recipients, at most %d at once", admin.ErrBadRequest, len(items), admin.MaxPage)
	}
	filters, err := s.filters(chosen, all, items)
	if err != nil {
		return err
	}
	if form.Get("sure") == "yes" {
		return s.apply(v, what, filters, chosen, all)
	}
	n, more := len(items), false
	if all {
		if n, more, err = s.count(v.r.Context(), filters[0]); err != nil {
			return err
		}
	}
	v.show(http.StatusOK, "confirm", struct {
		change
		Count string
		None  bool
		All   bool
		Words string
		Items []string
		Form  url.Values
		To    string
		Back  string
	}{what, counted(n, more), n == 0, all, chosen.Words(), items, chosen.Fields(), form.Get("to"), back(form.Get("back"), chosen)})
	return nil
}

func counted(n int, more bool) string {
	switch {
	case more:
		return "more than " + number(int64(n)) + " recipients"
	case n == 1:
		return "1 recipient"
	}
	return number(int64(n)) + " recipients"
}

// back is the page from which a change came.
func back(page string, chosen selection) string {
	if page == "mail" && chosen.ID != "" {
		return "mail?" + url.Values{"id": {chosen.ID}}.Encode()
	}
	if q := chosen.Fields().Encode(); q != "" {
		return "queue?" + q
	}
	return "queue"
}

// filters are what was chosen: all that match, or one for each recipient. An item is the
// id of a mail and the address of one recipient.
func (s *Site) filters(chosen selection, all bool, items []string) ([]admin.Filter, error) {
	if all {
		f, err := chosen.filter(time.Now())
		f.All, f.Cursor, f.Limit = true, "", 0
		return []admin.Filter{f}, err
	}
	list := make([]admin.Filter, len(items))
	for i, item := range items {
		id, recipient, ok := strings.Cut(item, " ")
		if !ok || id == "" || recipient == "" {
			return nil, fmt.Errorf("%w: %q names no recipient", admin.ErrBadRequest, item)
		}
		list[i] = admin.Filter{ID: id, Recipient: recipient}
	}
	return list, nil
}

// count counts what matches, up to a bound.
func (s *Site) count(ctx context.Context, f admin.Filter) (n int, more bool, err error) {
	for _, err := range admin.All(ctx, s.opt.Admin, f) {
		if err != nil {
			return n, false, err
		}
		if n == mostCounted {
			return n, true, nil
		}
		n++
	}
	return n, false, nil
}

// apply makes a change. It ends with the request, as does that of a command.
func (s *Site) apply(v *visit, what change, filters []admin.Filter, chosen selection, all bool) error {
	_ = http.NewResponseController(v.w).SetReadDeadline(time.Time{}) // the change may take longer than a request
	a, to, ctx := s.opt.Admin, v.r.PostForm.Get("to"), v.r.Context()
	do := map[string]func(context.Context, admin.Filter) (int, error){
		"retry": a.Retry, "hold": a.Hold, "release": a.Release, "drop": a.Drop,
		"reassign": func(ctx context.Context, f admin.Filter) (int, error) { return a.Reassign(ctx, f, to) },
	}[what.Name]
	changed := 0
	var failed error
	for _, f := range filters {
		n, err := do(ctx, f)
		changed += n
		if err != nil {
			failed = err
			break
		}
	}
	attrs := []any{"recipients", changed}
	if all {
		attrs = append(attrs, "selected", chosen.Words())
	} else {
		attrs = append(attrs, "mails", mailsOf(filters))
	}
	if to != "" {
		attrs = append(attrs, "account", to)
	}
	v.audit(what.Name, attrs...)
	if failed != nil {
		return errors.Join(fmt.Errorf("after %s the change ended", counted(changed, false)), failed)
	}
	back, query, _ := strings.Cut(back(v.r.PostForm.Get("back"), chosen), "?")
	q, err := url.ParseQuery(query)
	if err != nil {
		return err
	}
	q.Set("done", what.Name)
	q.Set("n", strconv.Itoa(changed))
	return v.goTo(back, q)
}

// mailsOf are the ids of the mails, of which a line of the log names ten.
func mailsOf(filters []admin.Filter) string {
	var ids []string
	for _, f := range filters {
		if !slices.Contains(ids, f.ID) {
			ids = append(ids, f.ID)
		}
	}
	if len(ids) > 10 {
		return strings.Join(ids[:10], " ") + fmt.Sprintf(" and %d more", len(ids)-10)
	}
	return strings.Join(ids, " ")
}
