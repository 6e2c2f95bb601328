package mail

import (
	"bytes"
	"slices"
	"strings"

	"github.com/smtp2rest/smtp2rest/relay/mail/mime"
)

// headers sets the subject, the Message-ID, and the headers that are passed on.
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
	for _, v := range c.options.Values {
		c.mail.set(v.Target, c.options.HeaderField, "", v.Text)
	}
	c.passed(h)
}

// passed sets the headers and fields that are passed on, and records those that are not.
func (c *composer) passed(h mime.Header) {
	var left, seen []string
	var size int64
	leave := func(name string, value []byte) {
		size += int64(len(value))
		if len(left) < maxHeaders {
			left = append(left, name)
		}
	}
	for _, f := range h {
		if len(f.Name) > maxHeaderName {
			continue
		}
		if s, ok := c.source(f.Name); ok {
			if why := c.field(s, f); why != "" {
				leave(s.Header+" ("+why+")", f.Value)
			}
			continue
		}
		if !passes(f.Name) {
			continue
		}
		name := mime.OneLine(string(f.Name)) // it may have any bytes
		if slices.ContainsFunc(seen, func(s string) bool { return strings.EqualFold(s, name) }) || len(seen) == maxHeaders {
			continue
		}
		seen = append(seen, name)
		if !c.options.PassHeaders || strings.EqualFold(name, "Cc") || !c.mail.set(Target{Name: c.options.HeaderField, Key: name}, c.options.HeaderField, "", c.decoder.Words(h.Get(string(f.Name)), c.charset)) {
			leave(name, f.Value)
		}
	}
	if len(left) > 0 {
		c.omit(HeadersDropped, size, strings.Join(left, ", "))
	}
}

// maxSubject bounds the subject, in bytes. No mail reader shows that much.
const maxSubject = 16 << 10

// cut shortens s to at most n bytes, without splitting a character.
func cut(s string, n int) string {
	if len(s) <= n {
		return s
	}
	return strings.ToValidUTF8(s[:n-len("…")], "") + "…"
}

// maxHeaders bounds the headers that are passed on or named in an omission.
const maxHeaders = 100

// maxHeaderName is longer than any sensible name of a header.
const maxHeaderName = 200

// passes reports whether a header field is of use to the recipient and has no field of
// its own in the API. Fields about transport, the form of the body, and recipients are
// not, above all Bcc.
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

// Identity identifies a mail for people and programs. It can also be read from a mail
// that Map refuses.
type Identity struct {
	MessageID string // without angles
	Subject   string
	Author    string // the address in From, as it is written
}

// Identify reads the header of a mail and nothing else.
func Identify(raw []byte) Identity {
	root := mime.Parse(raw[:headerEnd(raw)], mime.Limits{})
	h, d := root.Header, root.Decoder()
	return Identity{
		MessageID: messageID(d, h, ""),
		Subject:   cut(d.Words(h.Get("Subject"), ""), maxSubject),
		Author:    firstMailbox(d.Addresses(h.Get("From"), "")).Email,
	}
}

// Field returns the first line of the first header field of that name that is not empty,
// or nil. It is much cheaper than Map.
func Field(raw []byte, name string) []byte {
	for line := range bytes.Lines(raw[:headerEnd(raw)]) {
		key, value, _ := bytes.Cut(line, []byte(":"))
		if value = bytes.TrimSpace(value); len(value) > 0 && bytes.EqualFold(bytes.TrimSpace(key), []byte(name)) {
			return value
		}
	}
	return nil
}

// IsAutoReply reports whether a mail is the answer of a machine. A machine must
// not answer such mail (RFC 3834), although it has a sender.
func IsAutoReply(raw []byte) bool {
	return bytes.HasPrefix(bytes.ToLower(Field(raw, "Auto-Submitted")), []byte("auto-replied"))
}

// headerEnd returns where the header ends, for any kind of line end.
func headerEnd(raw []byte) int {
	const most = 256 << 10
	raw = raw[:min(len(raw), most)]
	end := len(raw)
	for _, empty := range [...]string{"\r\n\r\n", "\n\n", "\r\r"} {
		if i := bytes.Index(raw[:end], []byte(empty)); i >= 0 {
			end = i + len(empty)
		}
	}
	return end
}

func messageID(d *mime.Decoder, h mime.Header, hint string) string {
	return strings.Trim(d.Words(h.Get("Message-ID"), hint), "<> ")
}
