package mail

import (
	"bytes"
	"slices"
	"strings"

	"github.com/smtp2rest/smtp2rest/relay/mail/mime"
)

// headers sets the subject, the Message-ID and the headers that are passed on.
func (c *composer) headers(h mime.Header) {
	hint := c.charset
	c.mail.Subject = c.decoder.Words(h.Get("Subject"), hint)
	if short := cut(c.mail.Subject, maxSubject); short != c.mail.Subject {
		c.mail.Subject = short
		c.omit(OverLimit, 0, "the subject was cut")
	}
	if h.Count("Subject") > 1 {
		c.omit(HeaderRepaired, 0, "more than one Subject; the first is used")
	}
	c.mail.MessageID = messageID(c.decoder, h, hint)
	var left, seen []string
	var size int64
	for _, f := range h {
		if !passes(f.Name) || len(f.Name) > maxHeaderName {
			continue
		}
		name := mime.OneLine(string(f.Name)) // may be any bytes
		if slices.ContainsFunc(seen, func(s string) bool { return strings.EqualFold(s, name) }) || len(seen) == maxHeaders {
			continue
		}
		seen = append(seen, name)
		if !c.options.PassHeaders || strings.EqualFold(name, "Cc") {
			left, size = append(left, name), size+int64(len(f.Value))
			continue
		}
		c.mail.Headers = append(c.mail.Headers, Header{name, c.decoder.Words(h.Get(string(f.Name)), hint)})
	}
	if len(left) > 0 {
		c.omit(HeadersDropped, size, strings.Join(left, ", "))
	}
}

// maxSubject bounds the subject, in bytes: far more than any reader shows.
const maxSubject = 16 << 10

// cut shortens s to at most n bytes, at the end of a character.
func cut(s string, n int) string {
	if len(s) <= n {
		return s
	}
	return strings.ToValidUTF8(s[:n-len("…")], "") + "…"
}

// maxHeaders bounds how many headers are passed on or named in an omission.
const maxHeaders = 100

// maxHeaderName is longer than the name of any header that says something.
const maxHeaderName = 200

// passes reports whether a field says something to the recipient that the
// payload has no field for. Fields of transport, of the body's form and of
// recipients do not; Bcc above all.
func passes(name []byte) bool {
	var buf [32]byte
	key := buf[:min(len(name), len(buf))]
	for i := range key {
		key[i] = name[i] | 0x20 // lower case; leaves "-" and digits alone
	}
	switch string(key) {
	case "in-reply-to", "references", "importance", "priority", "precedence", "organization", "auto-submitted",
		"sensitivity", "keywords", "comments", "feedback-id", "thread-topic", "thread-index", "cc",
		"disposition-notification-to", "return-receipt-to", "mail-followup-to", "expires":
		return true
	case "x-original-to", "x-envelope-to", "x-envelope-from", "x-rcpt-to", "x-bcc", "x-mozilla-status", "x-mozilla-status2", "x-uidl":
		return false
	}
	return bytes.HasPrefix(key, []byte("list-")) || bytes.HasPrefix(key, []byte("x-"))
}
