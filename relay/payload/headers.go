package payload

import (
	"strings"

	"github.com/smtp2rest/smtp2rest/relay/payload/mime"
)

// headers sets the subject, the Message-ID and the headers that are passed on.
func (c *composer) headers(h mime.Header) {
	hint := c.charset
	c.mail.Subject = mime.DecodeWords(h.Get("Subject"), hint)
	c.mail.MessageID = strings.Trim(mime.DecodeWords(h.Get("Message-ID"), hint), "<> ")
	var left []string
	seen := map[string]bool{}
	for _, f := range h {
		name := string(f.Name)
		key := strings.ToLower(name)
		if seen[key] || !passes(key) {
			continue
		}
		seen[key] = true
		if c.options.HeaderField == "" || key == "cc" {
			left = append(left, name)
			continue
		}
		c.mail.Headers = append(c.mail.Headers, Header{name, mime.DecodeWords(h.Get(name), hint)})
	}
	if len(left) > 0 {
		c.note(HeadersDropped, strings.Join(left[:min(len(left), 50)], ", "))
	}
}

// passes reports whether a field, in lower case, says something to the
// recipient that the payload has no field for. Fields of transport, of the
// body's form and of recipients do not; Bcc above all.
func passes(key string) bool {
	switch key {
	case "in-reply-to", "references", "importance", "priority", "precedence", "organization", "auto-submitted",
		"sensitivity", "keywords", "comments", "feedback-id", "thread-topic", "thread-index", "cc",
		"disposition-notification-to", "return-receipt-to", "mail-followup-to", "expires":
		return true
	case "x-original-to", "x-envelope-to", "x-envelope-from", "x-rcpt-to", "x-bcc", "x-mozilla-status", "x-mozilla-status2", "x-uidl":
		return false
	}
	return strings.HasPrefix(key, "list-") || strings.HasPrefix(key, "x-")
}
