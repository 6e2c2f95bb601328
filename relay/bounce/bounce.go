// Package bounce writes the mail that tells a sender which of their recipients
// a mail did not reach, and why. It is pure: relay/intake and the queue's
// workers decide when to send one.
//
// The bounce is plain text and no multipart/report (RFC 3464): the API carries
// a subject and a body, so a machine-readable part would never arrive.
package bounce

import (
	"bytes"
	"fmt"
	"strings"
	"time"
	"unicode"

	"github.com/smtp2rest/smtp2rest/relay"
)

// maxHeader bounds how much of the original's header a bounce quotes.
const maxHeader = 16 << 10

// Options are what stays the same for all bounces.
type Options struct {
	From       relay.Address // the account's default sender
	Hostname   string        // of this relay, for the Message-ID and the text
	Postmaster string        // gets bounces for senders who cannot; "" = nobody
}

// Failure is one recipient that the mail did not reach.
type Failure struct {
	Recipient string
	Reason    string // in words, one sentence without a full stop
}

// Reason says in words what an outcome means for its recipient.
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

// Compose returns the bounce for m and whom it is for. It returns false when
// there must be none: for the null sender, for a bounce (RFC 5321 section
// 4.5.5 and RFC 3834 section 2), and when nobody can receive it.
func Compose(o Options, m *relay.Message, failed []Failure, now time.Time) (raw []byte, to string, ok bool) {
	header := headerOf(m.Raw)
	if m.From == "" || isAutomatic(header) {
		return nil, "", false
	}
	to = m.From
	if !canReceive(to) {
		to = o.Postmaster
	}
	if to == "" {
		return nil, "", false
	}
	var b bytes.Buffer
	writeHeader(&b, o, m, to, now)
	writeText(&b, o, m, failed, header)
	return b.Bytes(), to, true
}

func writeHeader(b *bytes.Buffer, o Options, m *relay.Message, to string, now time.Time) {
	lines := []string{
		"From: Mail Delivery <" + oneLine(o.From.Email) + ">",
		"To: <" + oneLine(to) + ">",
		"Subject: Your mail could not be delivered",
		"Date: " + now.Format(time.RFC1123Z),
		"Message-ID: <bounce-" + m.ID + "@" + oneLine(o.Hostname) + ">",
		"Auto-Submitted: auto-replied", // RFC 3834 section 5
		"MIME-Version: 1.0",
		"Content-Type: text/plain; charset=utf-8",
		"Content-Transfer-Encoding: 8bit",
	}
	b.WriteString(strings.Join(lines, "\r\n") + "\r\n\r\n")
}

func writeText(b *bytes.Buffer, o Options, m *relay.Message, failed []Failure, header []byte) {
	p := func(format string, args ...any) { fmt.Fprintf(b, format+"\r\n", args...) }
	p("This is the mail relay at %s.", oneLine(o.Hostname))
	p("")
	p("A mail from <%s>, handed in on %s,", oneLine(m.From), m.ReceivedAt.UTC().Format("2 January 2006 at 15:04 MST"))
	p("could not be delivered to:")
	p("")
	for _, f := range failed {
		p("  <%s>", oneLine(f.Recipient))
		p("    %s.", oneLine(f.Reason))
		p("")
	}
	p("It will not be tried again for these recipients. Its id here is %s.", m.ID)
	p("")
	p("The header of the mail was:")
	p("")
	for line := range bytes.Lines(header) {
		p("  %s", printable(string(bytes.TrimRight(line, "\r\n"))))
	}
}

// headerOf returns the header of a mail, cut at a line when it is very long.
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

// isAutomatic tells mail that no bounce must answer although it has a sender:
// an answer of a machine (RFC 3834) is never answered by a machine.
func isAutomatic(header []byte) bool {
	for line := range bytes.Lines(header) {
		name, value, _ := strings.Cut(string(line), ":")
		if strings.EqualFold(strings.TrimSpace(name), "Auto-Submitted") {
			return strings.HasPrefix(strings.ToLower(strings.TrimSpace(value)), "auto-replied")
		}
	}
	return false
}

// canReceive tells an address that mail can reach from one that only means
// something on the machine that made it.
func canReceive(address string) bool {
	at := strings.LastIndexByte(address, '@')
	if at <= 0 {
		return false
	}
	if strings.EqualFold(address[:at], "mailer-daemon") { // a machine's name for itself
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

// printable keeps what comes from outside from forging lines or controlling a
// terminal.
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
