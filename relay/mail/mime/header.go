package mime

import (
	"bytes"
	"strings"
)

// Field is one header field as it was transferred. Name and Value are slices of the mail;
// Value still has its folds.
type Field struct {
	Name  []byte
	Value []byte
}

// Header is a header block, in the order of the mail.
type Header []Field

// Get returns the first field of that name that is not empty, else the first. Mail readers
// show the first. Some programs write an empty default before the real field.
func (h Header) Get(name string) []byte {
	var found []byte
	for _, f := range h {
		if !foldEqual(f.Name, name) {
			continue
		}
		if v := bytes.TrimSpace(f.Value); len(v) > 0 {
			return v
		} else if found == nil {
			found = v
		}
	}
	return found
}

// Has reports whether there is a field of that name.
func (h Header) Has(name string) bool { return h.Count(name) > 0 }

// Count returns the number of fields of that name.
func (h Header) Count(name string) int {
	n := 0
	for _, f := range h {
		if foldEqual(f.Name, name) {
			n++
		}
	}
	return n
}

// foldEqual compares ASCII without regard to case. The comparison of lengths comes first so
// that the conversion is of a short name, which needs no allocation.
func foldEqual(b []byte, s string) bool { return len(b) == len(s) && strings.EqualFold(string(b), s) }

// Unfold undoes folding (RFC 5322 section 2.2.3): it replaces a line break and the white
// space around it by one space. A bare CR or NUL begins no new line.
func Unfold(v []byte) []byte {
	if bytes.IndexByte(v, '\n') < 0 && bytes.IndexByte(v, '\r') < 0 {
		return bytes.TrimSpace(v)
	}
	out := make([]byte, 0, len(v))
	for len(v) > 0 {
		i := bytes.IndexAny(v, "\r\n")
		if i < 0 {
			out = append(out, v...)
			break
		}
		out = append(bytes.TrimRight(append(out, v[:i]...), " \t"), ' ')
		v = bytes.TrimLeft(v[i:], " \t\r\n")
	}
	return bytes.TrimSpace(out)
}

// headerReader reads one header block.
type headerReader struct {
	limits Limits
	isOpen func(line []byte) bool // whether the line is an open boundary
	ahead  int                    // a later header field is known to begin before this offset
	fields *int                   // fields of the whole mail so far
	skips  bool                   // the last line was no field, so its continuation is skipped
	part   *Part
}

// read reads the header of the part from b and returns where its body begins. A part may
// have no header.
func (r *headerReader) read(b []byte, pos int) int {
	r.ahead, r.skips = -1, false
	start := pos
	for pos < len(b) {
		line, next := cutLine(b, pos)
		switch {
		case len(line) == 0:
			return next
		case line[0] == '-' && r.isOpen(line):
			r.part.add(BadHeader, "a boundary inside a header")
			return pos
		case line[0] == ' ' || line[0] == '\t':
			if len(bytes.TrimSpace(line)) == 0 && next >= r.ahead && !r.headerAhead(b, skipFolds(b, next), 1) {
				return next // a blank line that has white space
			}
			r.extend(line, next-start)
		default:
			if !r.field(b, line, next, next-start) {
				return pos
			}
		}
		pos = next
	}
	return pos
}

// field reads a line that begins a field. next is where the line after it begins. It returns
// false if the line begins the body, that is, if the blank line before the body is missing.
func (r *headerReader) field(b, line []byte, next, size int) bool {
	name, value, ok := cutField(line)
	if ok {
		r.append(name, value, size)
		return true
	}
	r.skips = true
	if bytes.HasPrefix(line, []byte("From ")) || bytes.HasPrefix(line, []byte(">From ")) {
		return true // the separator of an mbox file
	}
	if n := len(r.part.Header); n > 0 && unindented(r.part.Header[n-1].Value, line) {
		r.part.add(BadHeader, "a folded line without its indent")
		r.skips = false
		r.extend(line, size)
		return true
	}
	if !r.headerAhead(b, next, 1000) {
		r.part.add(BadHeader, "no blank line after the header")
		return false
	}
	r.part.add(BadHeader, "a line that is no header field")
	return true
}

// unindented reports whether a line continues a folded value but has lost its indent: it is
// a parameter after a semicolon, an address after a comma, or an encoded word. Other such
// lines are left out, as other parsers do.
func unindented(value, line []byte) bool {
	value = bytes.TrimSpace(value)
	switch {
	case bytes.HasSuffix(value, []byte(";")):
		return bytes.IndexByte(line, '=') > 0
	case bytes.HasSuffix(value, []byte(",")):
		return bytes.IndexByte(line, '@') > 0
	}
	return bytes.HasPrefix(line, []byte("=?"))
}

// skipFolds skips lines that begin with white space.
func skipFolds(b []byte, pos int) int {
	for pos < len(b) && (b[pos] == ' ' || b[pos] == '\t') {
		_, pos = cutLine(b, pos)
	}
	return pos
}

func (r *headerReader) append(name, value []byte, size int) {
	if len(r.part.Header) >= r.limits.HeaderFields || size > r.limits.HeaderBytes || *r.fields >= r.limits.AllFields {
		r.part.add(OverLimit, "header too long")
		r.skips = true
		return
	}
	r.skips = false
	*r.fields++
	r.part.Header = append(r.part.Header, Field{name, value})
}

// extend extends the last field by a further line, which follows it in memory.
func (r *headerReader) extend(line []byte, size int) {
	if size > r.limits.HeaderBytes {
		r.part.add(OverLimit, "header too long")
		return
	}
	n := len(r.part.Header)
	switch {
	case r.skips:
		return
	case n == 0:
		if name, value, ok := cutField(bytes.TrimLeft(line, " \t")); ok {
			r.append(name, value, size)
		}
		r.part.add(BadHeader, "the first header line is indented")
		return
	}
	// line and the value are slices of the same mail. The difference of their
	// capacities says where the line ends.
	last := &r.part.Header[n-1]
	last.Value = last.Value[: cap(last.Value)-cap(line)+len(line) : cap(last.Value)]
}

// headerAhead reports whether there is certainly a header field in the next lines, before
// a blank one. It remembers its answer, so that asking at each of many junk lines takes
// linear time.
func (r *headerReader) headerAhead(b []byte, pos, lines int) bool {
	if pos < r.ahead {
		return true
	}
	for ; pos < len(b) && lines > 0; lines-- {
		line, next := cutLine(b, pos)
		if len(line) == 0 {
			return false
		}
		if name, _, ok := cutField(line); ok && wellKnown(name) {
			r.ahead = next
			return true
		}
		pos = next
	}
	return false
}

// cutField splits a header line at its colon. RFC 5322 section 2.2 allows any printable
// character in a name, and programs write others. Parameters that lost their indent, and
// URLs, are not taken for fields.
func cutField(line []byte) (name, value []byte, ok bool) {
	i := bytes.IndexByte(line, ':')
	if i <= 0 || bytes.HasPrefix(line[i:], []byte("://")) {
		return nil, nil, false
	}
	name = bytes.TrimRight(line[:i], " \t") // RFC 5322 section 4.5: obsolete, but sent
	for j, c := range name {
		if c <= ' ' || c == 0x7F || c == '=' && j > 0 {
			return nil, nil, false
		}
	}
	return name, line[i+1:], len(name) > 0
}

func nameByte(c byte) bool {
	switch {
	case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9':
		return true
	}
	return c == '-' || c == '_' || c == '.'
}

// wellKnown reports whether a line with this name before its colon is certainly a header
// field and not prose.
func wellKnown(name []byte) bool {
	for _, prefix := range []string{"x-", "content-", "list-", "resent-", "arc-", "dkim-"} {
		if len(name) > len(prefix) && foldEqual(name[:len(prefix)], prefix) {
			return true
		}
	}
	for _, known := range []string{
		"from", "to", "cc", "bcc", "subject", "date", "sender", "reply-to", "message-id", "received",
		"mime-version", "return-path", "in-reply-to", "references", "user-agent", "delivered-to",
		"precedence", "importance", "priority", "errors-to", "auto-submitted", "organization",
	} {
		if foldEqual(name, known) {
			return true
		}
	}
	return false
}

// cutLine returns the line at pos without its end, and where the next line begins. The end
// is LF with any number of CRs before it: text files that were converted twice have two.
func cutLine(b []byte, pos int) (line []byte, next int) {
	i := bytes.IndexByte(b[pos:], '\n')
	if i < 0 {
		return bytes.TrimRight(b[pos:], "\r"), len(b)
	}
	end := pos + i
	for end > pos && b[end-1] == '\r' {
		end--
	}
	return b[pos:end], pos + i + 1
}
