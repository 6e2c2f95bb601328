package mail

import (
	"strings"

	"github.com/smtp2rest/smtp2rest/relay/mail/mime"
)

// calendar shows an invitation that stands alone as text: what, when, where.
// Beside a body, an alternative of it, it is left out by version.
func (c *composer) calendar(p *mime.Part) []*block {
	if c.options.Attachments == SendAttachments {
		return c.file(attachmentOf(p))
	}
	a := attachmentOf(p)
	c.omit(AlternativeDropped, a.Size, "an invitation, shown as text: "+a.Describe())
	text := c.text(p)
	if c.take(5 * len(text)) {
		text = eventText(text)
	}
	return c.show(block{text: text})
}

// eventText reads the first event of an iCalendar object (RFC 5545).
func eventText(ics string) string {
	ics = unfoldEvent(ics)
	unescape := strings.NewReplacer(`\n`, "\n", `\N`, "\n", `\,`, ",", `\;`, ";", `\\`, `\`).Replace // RFC 5545 section 3.3.11
	var b strings.Builder
	b.Grow(len(ics))
	in := false
	for line := range strings.Lines(ics) {
		line = strings.TrimSpace(line)
		name, value, ok := cutProperty(line)
		name, params, _ := strings.Cut(name, ";")
		name = strings.ToUpper(name)
		switch {
		case strings.EqualFold(line, "BEGIN:VEVENT"):
			in = true
		case strings.EqualFold(line, "END:VEVENT"):
			return b.String()
		case in && ok:
			if label := eventLabel(name); label != "" {
				for _, piece := range [...]string{label, ": ", eventValue(name, params, value, unescape), "\n"} {
					b.WriteString(piece)
				}
			}
		}
	}
	if b.Len() == 0 {
		return ics
	}
	return b.String()
}

// unfoldEvent joins the lines of a property (RFC 5545 section 3.1).
func unfoldEvent(ics string) string {
	var b strings.Builder
	b.Grow(len(ics))
	for line := range strings.SplitAfterSeq(ics, "\n") {
		if next := strings.TrimLeft(line[:min(len(line), 1)], " \t"); b.Len() > 0 && line != "" && next == "" {
			line = line[1:]
		} else if b.Len() > 0 {
			b.WriteByte('\n')
		}
		b.WriteString(strings.TrimSuffix(line, "\n"))
	}
	return b.String()
}

func eventLabel(name string) string {
	switch name {
	case "SUMMARY":
		return "Event"
	case "DTSTART":
		return "Start"
	case "DTEND":
		return "End"
	case "LOCATION":
		return "Location"
	case "ORGANIZER":
		return "Organizer"
	case "DESCRIPTION":
		return "Description"
	case "RRULE":
		return "Repeats"
	case "STATUS":
		return "Status" // above all CANCELLED
	}
	return ""
}

// cutProperty splits a content line at its colon, which may also stand in a
// quoted parameter (RFC 5545 section 3.1).
func cutProperty(line string) (name, value string, ok bool) {
	quoted := false
	for i := range len(line) {
		switch {
		case line[i] == '"':
			quoted = !quoted
		case line[i] == ':' && !quoted:
			return line[:i], line[i+1:], true
		}
	}
	return line, "", false
}

// timeZone returns the zone that a time's parameters name, in brackets.
func timeZone(params string) string {
	for p := range strings.SplitSeq(params, ";") {
		if name, value, _ := strings.Cut(p, "="); strings.EqualFold(name, "TZID") && value != "" {
			return " (" + strings.Trim(value, `"`) + ")"
		}
	}
	return ""
}

func eventValue(name, params, value string, unescape func(string) string) string {
	switch name {
	case "DTSTART", "DTEND":
		return eventTime(value) + timeZone(params)
	case "ORGANIZER":
		return strings.TrimPrefix(strings.TrimPrefix(value, "mailto:"), "MAILTO:")
	}
	return unescape(value)
}

// eventTime writes 20260102T150405Z as people read it.
func eventTime(v string) string {
	date, clock, _ := strings.Cut(v, "T")
	utc := strings.HasSuffix(clock, "Z")
	clock = strings.TrimSuffix(clock, "Z")
	if len(date) != 8 || strings.Trim(date+clock, "0123456789") != "" {
		return v
	}
	out := date[:4] + "-" + date[4:6] + "-" + date[6:]
	if len(clock) >= 4 {
		out += " " + clock[:2] + ":" + clock[2:4]
	}
	if utc {
		out += " UTC"
	}
	return out
}
