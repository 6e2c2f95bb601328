package notify

import (
	"bytes"
	"fmt"
	"mime"
	"strings"
	"time"

	"github.com/smtp2rest/smtp2rest/relay"
)

// subject is the first cause, and how many others there are.
func (n Notification) subject() string {
	first := n.News[0]
	s := first.title()
	if more := len(n.News) - 1; more > 0 {
		s += fmt.Sprintf(" (and %d more)", more)
	}
	return oneLine("smtp2rest at " + n.Host + ": " + s)
}

// title is the cause of a warning in one line. What failed is told by what it is.
func (n News) title() string {
	s := n.Why
	if n.Count > 0 {
		s = n.What
	}
	if n.Account != "" {
		s = "account " + n.Account + ": " + s
	}
	switch n.State {
	case Over:
		s = "over: " + s
	case Lasts:
		s = "still: " + s
	}
	return s
}

// text is the notification for people.
func (n Notification) text() string {
	var b strings.Builder
	p := func(format string, args ...any) { fmt.Fprintf(&b, format+"\n", args...) }
	p("This is the mail relay at %s.", oneLine(n.Host))
	for _, one := range n.News {
		p("")
		p("%s", oneLine(one.title()))
		switch {
		case one.State == Over:
			p("  It was: %s.", oneLine(one.What))
			p("  It has not been seen since %s.", clock(one.Until))
			continue
		case one.Count > 0:
			p("  %s.", oneLine(one.Why))
		default:
			p("  %s.", oneLine(one.What))
		}
		if !one.Since.IsZero() {
			p("  Since %s.", clock(one.Since))
		}
		if one.Do != "" {
			p("  What to do: %s.", oneLine(one.Do))
		}
	}
	p("")
	p("'smtp2rest status' says how it is now. [notify] in the configuration decides what is told.")
	return b.String()
}

func clock(t time.Time) string { return t.UTC().Format("2006-01-02 15:04 MST") }

// oneLine keeps what others said from writing lines of its own.
func oneLine(s string) string { return strings.Join(strings.Fields(s), " ") }

// Compose returns a notification as a mail. It is marked as a machine's (RFC 3834
// section 5), so that nobody's holiday answers it.
func (n Notification) Compose(from relay.Address, to []string) []byte {
	var b bytes.Buffer
	lines := []string{
		"From: smtp2rest <" + oneLine(from.Email) + ">",
		"To: <" + oneLine(strings.Join(to, ">, <")) + ">",
		"Subject: " + mime.QEncoding.Encode("utf-8", n.subject()),
		"Date: " + n.Created.Format(time.RFC1123Z),
		"Message-ID: <" + n.ID + "@" + oneLine(n.Host) + ">",
		"Auto-Submitted: auto-generated",
		"MIME-Version: 1.0",
		"Content-Type: text/plain; charset=utf-8",
		"Content-Transfer-Encoding: 8bit",
	}
	b.WriteString(strings.Join(lines, "\r\n") + "\r\n\r\n")
	b.WriteString(strings.ReplaceAll(n.Text, "\n", "\r\n"))
	return b.Bytes()
}
