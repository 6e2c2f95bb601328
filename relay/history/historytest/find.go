package historytest

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"pgregory.net/rapid"

	"github.com/smtp2rest/smtp2rest/relay"
	"github.com/smtp2rest/smtp2rest/relay/history"
)

// find compares a search, page by page.
func (m *model) find(*rapid.T) {
	q := history.Query{Limit: rapid.IntRange(1, 4).Draw(m.T, "limit")}
	maybe := func(label string, set func()) {
		if rapid.IntRange(0, 3).Draw(m.T, label) == 0 {
			set()
		}
	}
	maybe("by sender", func() { q.Sender = m.address("sender") })
	maybe("by recipient", func() { q.Recipient = m.address("recipient") })
	maybe("by name", func() {
		q.Name = rapid.SampledFrom([]string{"<a@x>", "b@x", "msg_1", "BOB@example.net", "alias@example.org", "alias", "Bob", "nothing"}).Draw(m.T, "name")
	})
	maybe("by subject", func() { q.Subject = rapid.SampledFrom([]string{"hello", "100%", "_"}).Draw(m.T, "subject") })
	maybe("by state", func() {
		q.States = rapid.SliceOfN(rapid.SampledFrom(history.States()), 1, 3).Draw(m.T, "states")
	})
	maybe("from", func() { q.From = m.now.Add(-time.Duration(rapid.IntRange(0, 20).Draw(m.T, "ago")) * time.Hour) })
	maybe("until", func() { q.Until = m.now.Add(-time.Duration(rapid.IntRange(0, 20).Draw(m.T, "ago")) * time.Hour) })
	if len(m.ids) > 0 {
		maybe("by id", func() {
			q.ID = rapid.SampledFrom(m.ids).Draw(m.T, "id")[:rapid.IntRange(1, 20).Draw(m.T, "length")]
		})
	}
	var got []string
	for pages := 0; ; pages++ {
		list, cursor, err := m.b.Find(m.Context(), q)
		m.must(err)
		for _, mail := range list {
			got = append(got, fmt.Sprint(mail.ID, " ", mail.Recipients[0].Addr, " ", mail.Recipients[0].State))
		}
		if q.Cursor = cursor; cursor == "" {
			break
		}
		if pages > 1000 {
			m.Fatal("the list has no end")
		}
	}
	if want := m.wanted(q); !slices.Equal(got, want) {
		m.Fatalf("%+v finds\n%s\nwant\n%s", q, strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

func (m *model) wanted(q history.Query) []string {
	var mails []history.Mail
	for _, mail := range m.mails {
		mails = append(mails, m.withEvents(*mail))
	}
	slices.SortFunc(mails, func(a, b history.Mail) int {
		return -cmp.Or(a.Received.Compare(b.Received), strings.Compare(a.ID, b.ID))
	})
	var want []string
	for _, mail := range mails {
		slices.SortFunc(mail.Recipients, func(a, b history.Recipient) int { return strings.Compare(key(a.Addr), key(b.Addr)) })
		for _, r := range mail.Recipients {
			if matches(q, mail, r) {
				want = append(want, fmt.Sprint(mail.ID, " ", r.Addr, " ", r.State))
			}
		}
	}
	return want
}

func matches(q history.Query, mail history.Mail, r history.Recipient) bool {
	name := strings.Trim(q.Name, "<> ")
	switch {
	case q.ID != "" && !strings.HasPrefix(mail.ID, q.ID),
		q.Sender != "" && key(mail.Sender) != key(q.Sender),
		q.Recipient != "" && key(r.Addr) != key(q.Recipient),
		q.Subject != "" && !strings.Contains(strings.ToLower(mail.Subject), strings.ToLower(q.Subject)),
		!q.From.IsZero() && mail.Received.Before(q.From),
		!q.Until.IsZero() && !mail.Received.Before(q.Until),
		len(q.States) > 0 && !slices.Contains(q.States, r.State):
		return false
	}
	is := func(address string) bool {
		local, _, _ := strings.Cut(key(address), "@")
		return address != "" && (key(address) == key(q.Name) || local == key(q.Name))
	}
	return q.Name == "" || mail.MessageID == name || r.APIID == q.Name || is(mail.Sender) || is(r.Addr) || is(r.Named)
}

// forget erases an address, and looks for it everywhere afterwards.
func (m *model) forget(*rapid.T) {
	if rapid.IntRange(0, 3).Draw(m.T, "really") > 0 {
		return
	}
	addr := m.address("address")
	var queued []string
	if len(m.ids) > 0 && rapid.Bool().Draw(m.T, "queued") {
		queued = []string{rapid.SampledFrom(m.ids).Draw(m.T, "queued id")}
	}
	_, err := m.b.Forget(m.Context(), addr, queued)
	m.must(err)
	for _, id := range queued {
		delete(m.mails, id)
		m.closed[id] = true
	}
	for id, mail := range m.mails {
		m.forgetIn(id, mail, addr)
	}
	m.events = slices.DeleteFunc(m.events, func(e relay.Event) bool { return key(e.Email) == key(addr) })
}

func (m *model) forgetIn(id string, mail *history.Mail, addr string) {
	gone := func(r history.Recipient) bool {
		return key(r.Addr) == key(addr) || r.Named != "" && key(r.Named) == key(addr)
	}
	waits := slices.ContainsFunc(mail.Recipients, func(r history.Recipient) bool { return r.State == history.Waiting })
	rest := slices.DeleteFunc(slices.Clone(mail.Recipients), gone)
	got := len(rest) < len(mail.Recipients)
	if key(mail.Sender) == key(addr) || got && (waits || len(rest) == 0) {
		delete(m.mails, id)
		m.closed[id] = m.closed[id] || waits
		return
	}
	if got {
		mail.Recipients, mail.Subject, mail.Reply = rest, "", ""
	}
	for _, word := range []string{key(addr), addr} {
		said := func(texts ...string) bool {
			return slices.ContainsFunc(texts, func(s string) bool { return strings.Contains(lowerASCII(s), lowerASCII(word)) })
		}
		if said(mail.Subject, mail.Reply, mail.Author, mail.MessageID) {
			mail.Head, mail.Subject, mail.Reply = history.Head{}, "", ""
		}
		for i := range mail.Recipients {
			r := &mail.Recipients[i]
			if slices.ContainsFunc(r.Steps, func(s history.Step) bool { return s.Attempt != nil && said(s.Attempt.Detail) }) {
				r.Steps = nil
			}
		}
	}
}

// lowerASCII is what SQL's lower() does.
func lowerASCII(s string) string {
	b := []byte(s)
	for i, c := range b {
		if 'A' <= c && c <= 'Z' {
			b[i] = c + 'a' - 'A'
		}
	}
	return string(b)
}
