// Package bounce composes the mail that tells a sender which recipients were not
// reached, and why. It is pure. relay/intake and relay/deliver decide when to send
// one.
//
// A bounce is plain text and no multipart/report (RFC 3464), because the API
// carries a subject and a body and no machine-readable part.
package bounce

import (
	"bytes"
	"fmt"
	"strings"
	"sync"
	"time"
	"unicode"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
	"github.com/smtp2rest/smtp2rest/relay"
	"github.com/smtp2rest/smtp2rest/relay/mail"
)

// maxHeader bounds how much of the original header a bounce quotes.
const maxHeader = 16 << 10

// Options are the same for all bounces.
type Options struct {
	From       relay.Address // the account's default sender
	Hostname   string        // of this relay
	Postmaster string        // gets the bounces of senders who cannot receive mail; "": nobody does
}

// Failure is a recipient that the mail did not reach.
type Failure struct {
	Recipient string
	Reason    string // one sentence without a full stop
}

// Reason says what an outcome means for the recipient.
func Reason(out relay.Outcome) string {
	switch {
	case out.Kind == relay.Suppressed:
		return "the address is on the mail provider's suppression list, so nothing is sent to it"
	case out.Kind == relay.TooLarge:
		return "the message is larger than the mail provider takes"
	case out.Kind == relay.Refused && out.Detail != "":
		return "the message was refused: " + out.Detail
	case out.Kind == relay.Refused:
		return "the message was refused, and no reason was given"
	case out.Status != 0:
		return fmt.Sprintf("the mail provider answered with an error (%d)", out.Status)
	default:
		return "the mail provider did not answer"
	}
}

// Compose returns the bounce for m and its recipient. It returns false if there
// must be none: for the null sender, for a bounce (RFC 5321 section 4.5.5 and RFC
// 3834 section 2), and if nobody can receive it.
func Compose(o Options, m *relay.Message, failed []Failure, now time.Time) (raw []byte, to string, ok bool) {
	return compose(o, notice{
		subject: "Your mail could not be delivered", what: "could not be delivered to:",
		end: "It will not be tried again for these recipients.",
	}, m, failed, now)
}

// ComposeComplaint is Compose for recipients who reported the mail as spam.
func ComposeComplaint(o Options, m *relay.Message, failed []Failure, now time.Time) (raw []byte, to string, ok bool) {
	return compose(o, notice{
		subject: "Your mail was reported as spam", what: "was delivered, and reported as spam by:",
		end: "Nothing more is sent to these recipients.",
	}, m, failed, now)
}

// notice is what a bounce says besides the names.
type notice struct{ subject, what, end string }

func compose(o Options, n notice, m *relay.Message, failed []Failure, now time.Time) (raw []byte, to string, ok bool) {
	if m.From == "" || mail.IsAutoReply(m.Raw) {
		return nil, "", false
	}
	header := headerOf(m.Raw)
	to = m.From
	if !canReceive(to) {
		to = o.Postmaster
	}
	if to == "" {
		return nil, "", false
	}
	var b bytes.Buffer
	writeHeader(&b, o, n, m, to, now)
	writeText(&b, o, n, m, failed, header)
	return b.Bytes(), to, true
}

func writeHeader(b *bytes.Buffer, o Options, n notice, m *relay.Message, to string, now time.Time) {
	lines := []string{
		"From: Mail Delivery <" + oneLine(o.From.Email) + ">",
		"To: <" + oneLine(to) + ">",
		"Subject: " + n.subject,
		"Date: " + now.Format(time.RFC1123Z),
		"Message-ID: <bounce-" + m.ID + "@" + oneLine(o.Hostname) + ">",
		"Auto-Submitted: auto-replied", // RFC 3834 section 5
		"MIME-Version: 1.0",
		"Content-Type: text/plain; charset=utf-8",
		"Content-Transfer-Encoding: 8bit",
	}
	b.WriteString(strings.Join(lines, "\r\n") + "\r\n\r\n")
}

func writeText(b *bytes.Buffer, o Options, n notice, m *relay.Message, failed []Failure, header []byte) {
	p := func(format string, args ...any) { fmt.Fprintf(b, format+"\r\n", args...) }
	p("This is the mail relay at %s.", oneLine(o.Hostname))
	p("")
	p("A mail from <%s>, handed in on %s,", oneLine(m.From), m.ReceivedAt.UTC().Format("2 January 2006 at 15:04 MST"))
	p("%s", n.what)
	p("")
	for _, f := range failed {
		p("  <%s>", oneLine(f.Recipient))
		p("    %s.", oneLine(f.Reason))
		p("")
	}
	p("%s Its id here is %s.", n.end, m.ID)
	if len(header) == 0 {
		return // of a mail that is not kept any more
	}
	p("")
	p("The header of the mail was:")
	p("")
	for line := range bytes.Lines(header) {
		p("  %s", printable(string(bytes.TrimRight(line, "\r\n"))))
	}
}

// headerOf returns the header of a mail, cut at a line if it is very long.
func headerOf(raw []byte) []byte {
	end := len(raw)
	for _, blank := range []string{"\r\n\r\n", "\n\n"} {
		if i := bytes.Index(raw[:end], []byte(blank)); i >= 0 {
			end = i
		}
	}
	if end > maxHeader {
		end = maxHeader
		if i := bytes.LastIndexByte(raw[:end], '\n'); i > 0 {
			end = i
		}
	}
	return raw[:end]
}

// canReceive returns false for an address that only means something on the
// machine that wrote it.
func canReceive(address string) bool {
	at := strings.LastIndexByte(address, '@')
	if at <= 0 {
		return false
	}
	if strings.EqualFold(address[:at], "mailer-daemon") { // a machine's own name
		return false
	}
	domain := strings.ToLower(strings.TrimSuffix(address[at+1:], "."))
	if !strings.Contains(domain, ".") || strings.HasPrefix(domain, "[") { // no domain, or an address literal
		return false
	}
	for _, private := range []string{".localhost", ".localdomain", ".local", ".internal", ".invalid", ".lan"} {
		if strings.HasSuffix(domain, private) {
			return false
		}
	}
	return true
}

func oneLine(s string) string {
	return strings.Join(strings.Fields(printable(s)), " ")
}

// printable replaces characters that could forge lines or control a terminal.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if r == '\t' {
			return ' '
		}
		if !unicode.IsPrint(r) {
			return '?'
		}
		return r
	}, strings.ToValidUTF8(s, "?"))
}

// Telling says whether a sender was told of a failure, as a metric label.
type Telling string

const (
	Told    Telling = "told"     // a bounce was queued or sent
	Nobody  Telling = "nobody"   // there is no sender who can be told
	TooMany Telling = "too_many" // bounce.per_hour is used up
)

// Tally counts mails that were given up for some recipients, by whether their
// sender was told. It is safe for concurrent use.
type Tally struct {
	mails *prometheus.CounterVec

	mu     sync.Mutex
	untold int64     // failed recipients of whom nobody was told
	latest time.Time // when that last happened
}

// NewTally returns a Tally at zero. It registers its metrics with reg, unless that
// is nil.
func NewTally(reg prometheus.Registerer) *Tally {
	t := &Tally{mails: promauto.With(reg).NewCounterVec(prometheus.CounterOpts{
		Name: "smtp2rest_bounces_total",
		Help: "Mails that were given up for some recipients, by whether the sender was told: told (a bounce was queued or sent), " +
			"nobody (no sender who could be told, and no postmaster), too_many (bounce.per_hour).",
	}, []string{"sender"})}
	for _, came := range []Telling{Told, Nobody, TooMany} {
		t.mails.WithLabelValues(string(came))
	}
	return t
}

// Count counts one mail, with the number of recipients that did not get it.
func (t *Tally) Count(came Telling, recipients int, now time.Time) {
	t.mails.WithLabelValues(string(came)).Inc()
	if came == Told {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	t.untold += int64(recipients)
	t.latest = now
}

// Untold returns of how many failed recipients nobody was told, and when that last
// happened.
func (t *Tally) Untold() (recipients int64, latest time.Time) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.untold, t.latest
}
