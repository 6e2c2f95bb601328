// Package manual writes manual pages in the man(7) macros: of the program's
// commands, as Command makes them from what the help is made from, and of the
// configuration file. It is pure; package main hands the words in.
package manual

import (
	"fmt"
	"strings"
)

// page is a manual page that is being written.
type page struct{ strings.Builder }

// newPage begins a page. Its date is left out: pages are made by the same
// program on different days, and must be the same.
func newPage(name, section, version string) *page {
	p := &page{}
	fmt.Fprintf(p, ".TH %s %s \"\" \"smtp2rest %s\" \"smtp2rest\"\n", quoted(strings.ToUpper(name)), section, escaped(version))
	return p
}

func (p *page) section(name string) { fmt.Fprintf(p, ".SH %s\n", name) }

// prose writes paragraphs. A line that begins with a space is shown as it is,
// with those around it.
func (p *page) prose(text string) {
	for _, paragraph := range strings.Split(strings.Trim(text, "\n"), "\n\n") {
		if strings.HasPrefix(paragraph, " ") {
			p.verbatim(paragraph)
			continue
		}
		p.WriteString(".PP\n")
		for _, line := range strings.Split(paragraph, "\n") {
			p.line(line)
		}
	}
}

// verbatim shows lines as they are.
func (p *page) verbatim(text string) {
	p.WriteString(".PP\n.RS 4\n.nf\n")
	for _, line := range strings.Split(text, "\n") {
		p.line(strings.TrimPrefix(line, "  "))
	}
	p.WriteString(".fi\n.RE\n")
}

// item is a paragraph with a tag, which is bold.
func (p *page) item(tag, text string) {
	fmt.Fprintf(p, ".TP\n\\fB%s\\fR\n", escaped(tag))
	p.line(text)
}

// line writes one line of text. One that begins with a dot or a quote would
// be taken as a request, and \& in front of it is nothing.
func (p *page) line(text string) {
	text = escaped(text)
	if strings.HasPrefix(text, ".") || strings.HasPrefix(text, "'") {
		text = `\&` + text
	}
	p.WriteString(text + "\n")
}

// escaped is text as man(7) reads it. A plain "-" may come out as a hyphen,
// which cannot be pasted into a shell; what is not ASCII is written by its
// number, because not every man(1) reads UTF-8.
func escaped(text string) string {
	text = strings.NewReplacer(`\`, `\e`, "-", `\-`, "\t", "    ").Replace(text)
	var b strings.Builder
	for _, r := range text {
		if r < 0x80 {
			b.WriteRune(r)
		} else {
			fmt.Fprintf(&b, `\[u%04X]`, r)
		}
	}
	return b.String()
}

func quoted(text string) string { return `"` + strings.ReplaceAll(escaped(text), `"`, `""`) + `"` }
