package mail

import (
	"slices"
	"strings"

	"github.com/smtp2rest/smtp2rest/relay"
	"github.com/smtp2rest/smtp2rest/relay/mail/mime"
	"github.com/smtp2rest/smtp2rest/smtpd/policy"
)

// sender sets From and ReplyTo.
func (c *composer) sender(h mime.Header, envelopeFrom string) *Refusal {
	from := c.decoder.Addresses(h.Get("From"), c.charset)
	author := c.author(h, from, envelopeFrom)
	c.authors(h, from, author)
	author.Email = asciiDomain(author.Email)
	local, domain := splitEmail(author.Email)
	switch {
	case author.Email == "":
		c.mail.From = relay.Address{Email: c.options.Default.Email, Name: author.Name}
	case c.verified(domain), strings.EqualFold(author.Email, c.options.Default.Email):
		c.mail.From = relay.Address{Email: author.Email, Name: author.Name}
	case domain != "" && c.options.ForeignSender == Refuse:
		c.mail.From = relay.Address{Email: author.Email, Name: cut(author.Name, maxName)}
		return refuse(SenderDomain, "From <"+author.Email+"> is not in a domain this relay may send from")
	default:
		c.mail.From = relay.Address{Email: c.options.Default.Email, Name: rewrittenName(author.Name, local, domain, envelopeFrom)}
		c.omit(SenderRewritten, 0, author.Email)
	}
	if c.mail.From.Name == "" && strings.EqualFold(c.mail.From.Email, c.options.Default.Email) {
		c.mail.From.Name = c.options.Default.Name
	}
	c.mail.From.Name = cut(c.mail.From.Name, maxName)
	c.replyTo(h, author)
	return nil
}

// maxName bounds a display name, in bytes.
const maxName = 300

// author returns who wrote the mail: From, else Sender, else the envelope sender.
func (c *composer) author(h mime.Header, list []mime.Address, envelopeFrom string) mime.Address {
	first := firstMailbox(list)
	if len(list) > 1 || h.Count("From") > 1 {
		c.omit(SenderRepaired, 0, "more than one author; the first is used")
	}
	if strings.Contains(first.Email, "@") {
		return first
	}
	// A name alone, or a local user such as cron's `root (Cron Daemon)`.
	for _, v := range [][]byte{h.Get("Sender"), []byte(envelopeFrom)} {
		if a := firstMailbox(c.decoder.Addresses(v, c.charset)); strings.Contains(a.Email, "@") {
			c.omit(SenderRepaired, 0, "From names no address")
			if first.Name != "" {
				a.Name = first.Name
			}
			return a
		}
	}
	c.omit(SenderRepaired, 0, "the mail names no sender")
	return first
}

// authors collects everybody whom the mail claims to be from: all addresses in all From
// fields, and the one that replaces a missing From.
func (c *composer) authors(h mime.Header, from []mime.Address, author mime.Address) {
	seen := map[string]bool{}
	add := func(a mime.Address) {
		if strings.Contains(a.Email, "@") && !seen[a.Email] && c.memory >= 0 {
			if len(seen) == maxAuthors {
				c.memory = -1 // stop reading, and refuse the mail
				return
			}
			seen[a.Email] = true
			c.mail.Authors = append(c.mail.Authors, a.Email)
		}
	}
	add(author)
	if h.Count("From") < 2 {
		for _, a := range from {
			add(a)
		}
		return
	}
	for _, f := range h {
		if strings.EqualFold(string(f.Name), "From") && c.memory >= 0 {
			for _, a := range c.decoder.Addresses(f.Value, c.charset) {
				add(a)
			}
		}
	}
}

// maxAuthors is more than any real mail has. The client must be allowed to use each.
const maxAuthors = 1000

// firstMailbox prefers an address with a domain, then any address, then a name.
func firstMailbox(list []mime.Address) mime.Address {
	for _, a := range list {
		if strings.Contains(a.Email, "@") {
			return a
		}
	}
	for _, a := range list {
		if a.Email != "" {
			return a
		}
	}
	if len(list) > 0 {
		return list[0]
	}
	return mime.Address{}
}

// replyTo sets where replies go: the mail's Reply-To, else the author whom a rewritten
// From hides, if a reply can reach that address.
func (c *composer) replyTo(h mime.Header, author mime.Address) {
	list := c.decoder.Addresses(h.Get("Reply-To"), c.charset)
	for _, a := range list {
		if reachable(a.Email) {
			c.mail.ReplyTo = &relay.Address{Email: asciiDomain(a.Email), Name: a.Name}
			if len(list) > 1 {
				c.omit(ReplyToChanged, 0, "more than one address in Reply-To; the first is used")
			}
			return
		}
	}
	if len(list) > 0 {
		c.omit(ReplyToChanged, 0, "no answer can reach what Reply-To names")
	}
	if author.Email != c.mail.From.Email && reachable(author.Email) {
		c.mail.ReplyTo = &relay.Address{Email: author.Email, Name: author.Name}
	}
}

// rewrittenName returns the display name of a rewritten From. Without a name of its own
// it is "user (host)" and not an address: receivers take an address in a display name for
// forgery.
func rewrittenName(name, local, domain, envelopeFrom string) string {
	if name != "" {
		return name
	}
	if domain == "" {
		if l, d := splitEmail(envelopeFrom); l == local {
			domain = d
		}
	}
	if domain == "" {
		return local
	}
	return local + " (" + domain + ")"
}

func splitEmail(email string) (local, domain string) {
	i := strings.LastIndexByte(email, '@')
	if i < 0 {
		return email, ""
	}
	return email[:i], email[i+1:]
}

// verified reports whether the account may send from exactly this domain. A subdomain is
// another domain, which the provider verifies separately.
func (c *composer) verified(domain string) bool {
	if domain == "" {
		return false
	}
	domains := c.options.Domains
	if len(domains) == 0 {
		_, own := splitEmail(c.options.Default.Email)
		domains = []string{own}
	}
	form, sure := policy.Domain(domain)
	return sure && slices.ContainsFunc(domains, func(d string) bool {
		verified, _ := policy.Domain(d)
		return verified == form
	})
}

// asciiDomain writes an internationalised domain in ASCII, if it has such a form.
func asciiDomain(email string) string {
	local, domain := splitEmail(email)
	form, sure := policy.Domain(domain)
	if sure && strings.ContainsFunc(domain, func(r rune) bool { return r >= 0x80 }) {
		return local + "@" + form
	}
	return email
}

// reachable reports whether a reply from the Internet can reach an address. It cannot if
// the domain is reserved (RFC 2606, RFC 6761, RFC 6762), is a bare host name, or is no
// valid name in DNS.
func reachable(email string) bool {
	_, domain := splitEmail(email)
	domain, sure := policy.Domain(domain)
	i := strings.LastIndexByte(domain, '.')
	if i < 0 || !sure {
		return false
	}
	switch domain[i+1:] {
	case "local", "localdomain", "localhost", "lan", "internal", "intranet", "home", "corp", "invalid", "test", "example", "arpa":
		return false
	}
	return true
}
