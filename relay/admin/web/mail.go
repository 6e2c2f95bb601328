package web

import (
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"

	"github.com/smtp2rest/smtp2rest/relay/admin"
	"github.com/smtp2rest/smtp2rest/relay/history"
)

// mostMatches is how many mails of one name are listed.
const mostMatches = 100

// search finds a mail by what 'smtp2rest trace' takes.
func (s *Site) search(v *visit) error {
	q := strings.TrimSpace(v.r.URL.Query().Get("q"))
	if q == "" {
		return v.goTo("./", nil)
	}
	found, err := s.opt.History.Trace(v.r.Context(), history.Query{Name: strings.Trim(q, "<>"), Limit: mostMatches})
	switch {
	case err != nil:
		return err
	case found.Mail != nil:
		return v.goTo("mail", url.Values{"id": {found.Mail.ID}})
	}
	v.show(http.StatusOK, "search", struct {
		Query   string
		Matches []history.Mail
		More    bool
	}{q, found.Matches, found.More})
	return nil
}

// mail shows what became of one mail.
func (s *Site) mail(v *visit) error {
	id := v.r.URL.Query().Get("id")
	if id == "" {
		return v.goTo("./", nil)
	}
	found, err := s.opt.History.Trace(v.r.Context(), history.Query{Name: id, Limit: mostMatches})
	if err != nil {
		return err
	}
	if found.Mail == nil {
		return v.goTo("search", url.Values{"q": {id}})
	}
	v.show(http.StatusOK, "mail", struct {
		*history.Mail
		Queue   *admin.Mail
		Summary string
		Done    string
	}{found.Mail, found.Queue, summary(found), done(v)})
	return nil
}

// summary tells a mail's story in plain text, for somebody who does not see this page.
func summary(t admin.Traced) string {
	m := t.Mail
	var b strings.Builder
	line := func(name, value string) {
		if value != "" {
			fmt.Fprintf(&b, "%-11s %s\n", name, value)
		}
	}
	line("Mail", m.ID)
	line("Received", stamp(m.Received)+" "+m.Received.Local().Format("-07:00"))
	line("Sender", sender(m.Sender))
	line("From", m.Author)
	line("Subject", m.Subject)
	line("Message-ID", m.MessageID)
	line("Client", clientWords(m.Client.Addr, m.Client.Helo))
	line("Kept by sendmail of", m.Client.KeptBy)
	line("User", m.Client.User)
	line("Account", m.Account)
	line("Reply", m.Reply)
	for _, l := range m.LeftOut {
		line("Left out", l.Kind+": "+l.Detail)
	}
	for _, r := range m.Recipients {
		fmt.Fprintf(&b, "\nTo %s: %s\n", r.Addr, r.State)
		for _, step := range r.Steps {
			fmt.Fprintf(&b, "  %s  %s\n", stamp(step.At), step.Words)
		}
		for _, q := range queued(t.Queue, r.Addr) {
			fmt.Fprintf(&b, "  now in the queue: %s\n", q.Why)
		}
	}
	return b.String()
}

// queued is what the queue has of a recipient: nothing, or one.
func queued(m *admin.Mail, addr string) []admin.Recipient {
	if m == nil {
		return nil
	}
	for _, r := range m.Recipients {
		if strings.EqualFold(r.Recipient, addr) {
			return []admin.Recipient{r}
		}
	}
	return nil
}

func clientWords(addr, helo string) string {
	if helo == "" {
		return addr
	}
	return addr + " (" + helo + ")"
}

// sender is an address of an envelope for people.
func sender(addr string) string {
	if addr == "" {
		return "<> (a bounce)"
	}
	return addr
}

// done says what a change before did, by the query to which it led.
func done(v *visit) string {
	q := v.r.URL.Query()
	if !q.Has("done") {
		return ""
	}
	what, n := q.Get("done"), q.Get("n")
	for _, c := range changes() {
		if c.Name == what {
			return c.Past + ": " + n
		}
	}
	return map[string]string{"added": "Added to the list: " + n, "removed": "Removed from the list: " + n}[what]
}

// mostShown is how much of a mail's content is shown, in bytes.
const mostShown = 256 << 10

// content shows a mail as it came, as text, while the queue has it.
func (s *Site) content(v *visit) error {
	id := v.r.URL.Query().Get("id")
	raw, err := s.opt.Admin.Raw(v.r.Context(), id)
	if err != nil {
		return err
	}
	defer func() { _ = raw.Close() }()
	text, err := io.ReadAll(io.LimitReader(raw, mostShown+1))
	if err != nil {
		return err
	}
	v.audit("read the content", "mail", id)
	v.show(http.StatusOK, "content", struct {
		ID, Text string
		More     bool
	}{id, string(text[:min(len(text), mostShown)]), len(text) > mostShown})
	return nil
}
