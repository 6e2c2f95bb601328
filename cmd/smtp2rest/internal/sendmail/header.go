package sendmail

import (
	"bytes"
	"net/mail"
	"slices"
	"strings"
	"time"
	"unicode"
)

// Local has what a mail says about the machine, the user and the time.
type Local struct {
	User     string // login name
	FullName string
	Domain   string // of this machine
	Now      time.Time
	ID       string // left part of a Message-ID
}

// A Mail is a mail to hand over.
type Mail struct {
	Host       string // which hands it over
	From       string // "" is the null sender
	Recipients []string
	Data       []byte // with CRLF line ends
}

// Compose makes the mail to send from what was read. The sender of the envelope is the
// one of -f, otherwise the user. With -t the recipients are in the header.
func Compose(c Command, raw []byte, l Local) (Mail, error) {
	if !c.IgnoreDots {
		raw = untilDot(raw)
	}
	fields, body := split(raw)
	m := Mail{Host: l.Domain, From: c.From, Recipients: c.Recipients}
	if !c.HasFrom {
		m.From = l.User
	}
	m.From = l.qualify(m.From)
	if c.FromHeader {
		found, err := recipients(fields)
		if err != nil {
			return Mail{}, err
		}
		// They are added to those of the command line, as with Postfix and msmtp. By
		// sendmail's manual and with Exim those of the command line get no mail; but
		// nobody expects to lose a recipient whom they have named.
		m.Recipients = append(slices.Clone(m.Recipients), found...)
	}
	m.Recipients = once(m.Recipients)
	if len(m.Recipients) == 0 {
		return Mail{}, Errorf(DataErr, "no recipients in To, Cc or Bcc")
	}
	m.Data = join(append(visible(fields), missing(fields, c, m.From, l)...), body)
	return m, nil
}

// qualify adds the domain to a sender: only here is it known which machine the mail comes
// from. The daemon, which has the aliases, completes recipients.
func (l Local) qualify(address string) string {
	if address == "" || strings.Contains(address, "@") && (address[0] != '"' || !strings.HasSuffix(address, `"`)) {
		return address
	}
	return address + "@" + l.Domain
}

// once removes duplicates.
func once(list []string) []string {
	var kept []string
	seen := map[string]bool{}
	for _, s := range list {
		if !seen[s] {
			seen[s] = true
			kept = append(kept, s)
		}
	}
	return kept
}

// untilDot cuts a mail at a line with nothing but a dot, as sendmail does without -i.
func untilDot(raw []byte) []byte {
	pos := 0
	for line := range bytes.Lines(raw) {
		if string(bytes.TrimRight(line, "\r\n")) == "." {
			return raw[:pos]
		}
		pos += len(line)
	}
	return raw
}

// field is one header field.
type field struct {
	name string // in lower case
	line []byte // with folds as CRLF, without the last line end
}

func (f field) value() string {
	_, value, _ := bytes.Cut(f.line, []byte(":"))
	return string(value)
}

func (f field) empty() bool { return strings.TrimSpace(f.value()) == "" }

// split returns the header, and the body with CRLF line ends. The header ends at a blank
// line, or before the first line that is no field: many scripts send only text.
//
// A CR inside a header line becomes a space: a program that removes only LF from a
// subject must not let a stranger add a Bcc. In the body a CR ends a line.
func split(raw []byte) (fields []field, body []byte) {
	for first := true; len(raw) > 0; first = false {
		line, rest, _ := bytes.Cut(raw, []byte("\n"))
		line = bytes.TrimRight(line, "\r")
		if len(bytes.TrimSpace(line)) == 0 {
			return fields, lineEnds(rest)
		}
		line = bytes.ReplaceAll(line, []byte("\r"), []byte(" ")) // a copy
		name, isField := fieldName(line)
		switch {
		case first && bytes.HasPrefix(line, []byte("From ")): // a line of an mbox file
		case isField:
			fields = append(fields, field{name, line})
		case len(fields) > 0 && (line[0] == ' ' || line[0] == '\t'):
			last := &fields[len(fields)-1]
			last.line = append(append(last.line, "\r\n"...), line...)
		default:
			return fields, lineEnds(raw)
		}
		raw = rest
	}
	return fields, nil
}

// fieldName returns the name before the colon (RFC 5322 section 3.6.8), which may have
// blanks behind it (section 4.5).
func fieldName(line []byte) (string, bool) {
	i := bytes.IndexByte(line, ':')
	if i <= 0 || line[0] == ' ' || line[0] == '\t' {
		return "", false
	}
	name := bytes.TrimRight(line[:i], " \t")
	if bytes.ContainsFunc(name, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return "", false
	}
	return string(bytes.ToLower(name)), true
}

// lineEnds makes every line end CRLF. Any number of CRs belong to the LF behind them, as
// in text that was converted twice. A CR by itself ends a line.
func lineEnds(b []byte) []byte {
	out := make([]byte, 0, len(b)+len(b)/32+2)
	for len(b) > 0 {
		i := bytes.IndexAny(b, "\r\n")
		if i < 0 {
			return append(append(out, b...), "\r\n"...)
		}
		out = append(out, b[:i]...)
		b = b[i:]
		ends := len(b) - len(bytes.TrimLeft(b, "\r"))
		b = b[ends:]
		if len(b) > 0 && b[0] == '\n' {
			b, ends = b[1:], 1
		}
		for range ends {
			out = append(out, "\r\n"...)
		}
	}
	return out
}

// recipients reads To, Cc and Bcc or, if there are Resent fields, those of their newest
// block, which is the first in the header (RFC 5322 section 3.6.6).
func recipients(fields []field) ([]string, error) {
	from := fields
	prefix := ""
	if block := resent(fields); len(block) > 0 {
		from, prefix = block, "resent-"
	}
	var all []string
	for _, f := range from {
		name, ok := strings.CutPrefix(f.name, prefix)
		if !ok || name != "to" && name != "cc" && name != "bcc" {
			continue
		}
		list, err := Addresses(f.value())
		if err != nil {
			return nil, Errorf(DataErr, "%s: %s", f.line[:bytes.IndexByte(f.line, ':')], err)
		}
		all = append(all, list...)
	}
	return all, nil
}

// resent returns the first block of Resent fields. It ends at another field, or where a
// name comes a second time.
func resent(fields []field) []field {
	is := func(f field) bool { return strings.HasPrefix(f.name, "resent-") }
	start := slices.IndexFunc(fields, is)
	if start < 0 {
		return nil
	}
	seen := map[string]bool{}
	end := start
	for end < len(fields) && is(fields[end]) && !seen[fields[end].name] {
		seen[fields[end].name] = true
		end++
	}
	return fields[start:end]
}

// visible returns the header without Bcc, and without empty fields that we replace.
func visible(fields []field) []field {
	return slices.DeleteFunc(slices.Clone(fields), func(f field) bool {
		switch f.name {
		case "bcc", "resent-bcc":
			return true
		case "from", "date", "message-id":
			return f.empty()
		}
		return false
	})
}

// missing returns the fields that sendmail adds.
func missing(fields []field, c Command, from string, l Local) []field {
	var add []field
	has := func(name string) bool {
		return slices.ContainsFunc(fields, func(f field) bool { return f.name == name && !f.empty() })
	}
	put := func(name, value string) {
		if !has(strings.ToLower(name)) {
			add = append(add, field{strings.ToLower(name), []byte(name + ": " + value)})
		}
	}
	author, name := from, c.FullName
	if author == "" {
		author = l.qualify("MAILER-DAEMON")
	}
	if name == "" && !c.HasFrom {
		name = l.FullName // the name of -f's address is not known
	}
	put("From", mailbox(name, author))
	put("Date", l.Now.Format("Mon, 2 Jan 2006 15:04:05 -0700"))
	put("Message-ID", "<"+l.ID+"@"+l.Domain+">")
	return add
}

// mailbox writes an address with a name. Anybody may choose the name: whatever is in it,
// it stays one quoted string or encoded word.
func mailbox(name, address string) string {
	name = strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return ' '
		}
		return r
	}, strings.ToValidUTF8(name, "?"))
	if name = strings.Join(strings.Fields(name), " "); name == "" {
		return address
	}
	phrase := strings.TrimSuffix((&mail.Address{Name: name, Address: "a@b"}).String(), "<a@b>")
	return phrase + "<" + address + ">"
}

func join(fields []field, body []byte) []byte {
	var b bytes.Buffer
	for _, f := range fields {
		b.Write(f.line)
		b.WriteString("\r\n")
	}
	b.WriteString("\r\n")
	b.Write(body)
	return b.Bytes()
}
