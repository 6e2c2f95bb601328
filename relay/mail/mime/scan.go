package mime

import (
	"bytes"
	"strings"
)

// Parse reads a mail. The parts are slices of raw, which must not change.
func Parse(raw []byte, limits Limits) *Part { return parse(raw, limits, len(raw)) }

// Outline is Parse, but does not look into messages that are encoded, and so
// takes hardly any memory.
func Outline(raw []byte, limits Limits) *Part { return parse(raw, limits, 0) }

// parse decodes no more than so many octets of encoded messages.
func parse(raw []byte, limits Limits, unpack int) *Part {
	s := &scanner{limits: limits.withDefaults(), decoder: &Decoder{}, unpack: unpack}
	s.guesses = 8
	root := s.parse(unwrap(raw), 0)
	if s.overParts {
		root.add(OverLimit, "too many parts")
	}
	return root
}

// unwrap removes what came around the mail: a byte order mark, and line ends
// of bare CRs (old Macs and some devices), without which there are no lines.
func unwrap(raw []byte) []byte {
	raw = bytes.TrimPrefix(raw, []byte("\xEF\xBB\xBF"))
	first, _ := cutLine(raw, 0)
	if i := bytes.IndexByte(first, '\r'); i >= 0 {
		if _, _, ok := cutField(bytes.TrimSpace(first[:i])); ok {
			raw = bytes.ReplaceAll(raw, []byte("\r\n"), []byte("\n"))
			raw = bytes.ReplaceAll(raw, []byte("\r"), []byte("\n"))
		}
	}
	return skipBlank(raw)
}

// skipBlank drops blank lines before the header: a program's habit that would
// otherwise make its whole header a text.
func skipBlank(raw []byte) []byte {
	pos := 0
	for pos < len(raw) {
		line, next := cutLine(raw, pos)
		if len(bytes.TrimSpace(line)) > 0 {
			if name, _, ok := cutField(line); ok && wellKnown(name) {
				return raw[pos:]
			}
			return raw
		}
		pos = next
	}
	return raw
}

// scanner finds the parts in one pass over the lines that begin with "--",
// with a stack of the containers that are open, and no recursion: a mail
// nested 5,000 deep costs no more than a flat one of that size.
type scanner struct {
	b         []byte
	limits    Limits
	stack     []open
	base      int            // depth of the message being parsed, when encoded inside another
	levels    map[string]int // boundary → the innermost level that has it
	parts     int            // leaves so far
	inner     int            // containers so far
	overParts bool           // there were too many
	guesses   int            // boundaries that may still be guessed, each costs a pass
	fields    int            // header fields so far
	unpack    int            // octets of encoded messages that may still be decoded
	decoder   *Decoder
}

func (s *scanner) part() *Part { return &Part{decoder: s.decoder} }

// open is a container whose end has not been seen.
type open struct {
	part     *Part
	boundary string // "" for message/rfc822, which ends where its container does
	shadowed int    // the outer level with the same boundary, or -1
	begin    int    // where its body begins
	closed   bool   // its closing boundary was seen
	stop     int    // where that is
	children int    // parts in it, wherever they were attached
}

func (s *scanner) parse(b []byte, base int) *Part {
	s.b, s.base, s.stack, s.levels = b, base, nil, nil
	root := s.part()
	s.parts++
	pos := s.begin(root, 0)
	for len(s.stack) > 0 {
		// pos is at the text before a boundary, or after the last part.
		at, next, level, closing := s.nextBoundary(pos)
		if top := &s.stack[len(s.stack)-1]; top.closed {
			top.epilogue(s.b[pos:at])
		}
		if again, ok := s.unwind(level, at); ok {
			pos = again
			continue
		}
		if level >= 0 {
			pos = s.boundary(level, closing, at, next)
		}
	}
	return root
}

// epilogue notes text after the last part, such as the footer of a mailing list
// that did not read MIME. No mail reader shows it.
func (o *open) epilogue(text []byte) {
	if text = bytes.TrimSpace(text); len(text) > 0 {
		o.part.add(Epilogue, o.part.decoder.Words(text[:min(len(text), 60)], ""))
		for i := range o.part.Defects {
			if d := &o.part.Defects[i]; d.Kind == Epilogue && d.Size == 0 {
				d.Size = len(text)
			}
		}
	}
}

// boundary acts on a boundary line of the innermost container.
func (s *scanner) boundary(level int, closing bool, at, next int) int {
	top := &s.stack[level]
	if closing {
		top.closed, top.stop = true, at
		if top.shadowed >= 0 {
			// The container around it uses the same boundary: the next one
			// is the container's.
			s.end(next)
		}
		return next
	}
	top.closed = false // parts after a closing boundary are parts all the same
	if s.full() {
		return s.rest(next)
	}
	return s.child(next)
}

// child reads a part that begins at pos and returns where it has been read to.
func (s *scanner) child(pos int) int {
	p := s.part()
	s.parts++
	top := s.stack[len(s.stack)-1].part
	s.attach(p)
	if top.Type == "multipart/digest" {
		p.Type = "message/rfc822" // RFC 2046 section 5.1.5
	}
	return s.begin(p, pos)
}

// full reports whether the limit on parts is reached. Containers are cheap to
// nest and hold nothing themselves: there may be ten times as many.
func (s *scanner) full() bool {
	return s.parts >= s.limits.Parts || s.inner >= 10*s.limits.Parts
}

// attach adds a part to the innermost container within the depth limit.
func (s *scanner) attach(p *Part) {
	i := len(s.stack) - 1
	if deepest := s.limits.Depth - 1 - s.base; i > deepest {
		i = max(deepest, 0)
		p.add(OverLimit, "nested too deeply")
	}
	s.stack[len(s.stack)-1].children++
	s.stack[i].part.Parts = append(s.stack[i].part.Parts, p)
}

// begin reads a part's header and, when it is a container, opens it. A leaf's
// body is found with the next boundary.
func (s *scanner) begin(p *Part, pos int) int {
	r := headerReader{limits: s.limits, isOpen: s.isOpen, fields: &s.fields, part: p}
	for {
		pos = r.read(s.b, pos)
		p.classify()
		s.undeclared(p, pos)
		o := open{part: p, begin: pos, shadowed: -1}
		switch {
		case p.multipart():
			s.parts, s.inner = s.parts-1, s.inner+1
			o.boundary = strings.TrimRight(p.Param("boundary"), " \t")
		case isMessage(p.Type) && s.identity(p) && !s.full():
			s.inner++
			s.push(o)
			child := s.part()
			s.attach(child)
			p, r.part = child, child
			pos = skipTo(s.b, pos)
			continue
		}
		s.push(o)
		return pos
	}
}

// skipTo steps over one blank line before an embedded message's header.
func skipTo(b []byte, pos int) int { return len(b) - len(skipBlank(b[pos:])) }

func isMessage(t string) bool { return t == "message/rfc822" || t == "message/global" }

// identity reports whether the part is transferred as it is, as RFC 2046
// section 5.2.1 wants it of an embedded message.
func (s *scanner) identity(p *Part) bool {
	return p.transfer != encBase64 && p.transfer != encQuoted
}

func (s *scanner) push(o open) {
	level := len(s.stack)
	if o.boundary != "" {
		if s.levels == nil {
			s.levels = map[string]int{}
		}
		if outer, ok := s.levels[o.boundary]; ok {
			o.shadowed = outer
		}
		s.levels[o.boundary] = level
	}
	s.stack = append(s.stack, o)
}

// unwind ends every part inside the given level, at the offset where the line
// of the boundary begins. It returns false when nothing has to be read again.
func (s *scanner) unwind(level, at int) (int, bool) {
	for len(s.stack)-1 > level {
		if pos, ok := s.guess(at); ok {
			return pos, true
		}
		s.end(at)
	}
	return 0, false
}

// end closes the innermost open part.
func (s *scanner) end(at int) {
	o := s.stack[len(s.stack)-1]
	s.stack = s.stack[:len(s.stack)-1]
	s.forget(o)
	o.part.Body = s.b[o.begin:max(o.begin, at)]
	switch {
	case o.children > 0 && len(o.part.Parts) == 0:
		o.part.Type, o.part.Body = "multipart/mixed", nil // too deep: the parts are elsewhere
	case !o.part.multipart():
		s.embedded(o.part)
	case len(o.part.Parts) == 0:
		// Whatever it is, a person can read it (RFC 2046 section 5.1.1 wants
		// at least one part).
		o.part.add(BadBoundary, "a multipart without parts")
		if o.closed {
			o.part.Body = s.b[o.begin:max(o.begin, o.stop)]
		}
		o.part.Type, o.part.Params = "text/plain", nil
		if looksLikeHTML(o.part.Body) {
			o.part.Type = "text/html"
		}
	case !o.closed:
		o.part.add(BadBoundary, "the closing boundary is missing")
	}
}

// forget takes a container's boundary out of force.
func (s *scanner) forget(o open) {
	switch {
	case o.boundary == "":
	case o.shadowed >= 0:
		s.levels[o.boundary] = o.shadowed
	default:
		delete(s.levels, o.boundary)
	}
}

// nextBoundary finds the next line at or after start, which is the beginning
// of a line, that is a boundary in force. at is the end of the text before it.
// Without one, level is -1 and at is the end of the mail.
func (s *scanner) nextBoundary(start int) (at, next, level int, closing bool) {
	pos := start
	for len(s.levels) > 0 && pos < len(s.b) {
		if !bytes.HasPrefix(s.b[pos:], []byte("--")) {
			i := bytes.Index(s.b[pos:], []byte("\n--"))
			if i < 0 {
				break
			}
			pos += i + 1
		}
		line, after := cutLine(s.b, pos)
		if level, closing, ok := s.match(line); ok {
			return lineEnd(s.b, start, pos), after, level, closing
		}
		pos = after
	}
	return len(s.b), len(s.b), -1, false
}

// lineEnd returns where the text before the line at pos ends: its line break
// belongs to the boundary (RFC 2046 section 5.1.1).
func lineEnd(b []byte, start, pos int) int {
	if pos > start && b[pos-1] == '\n' {
		pos--
		if pos > start && b[pos-1] == '\r' {
			pos--
		}
	}
	return pos
}

// rest makes everything from pos on one opaque part, once there are too many.
func (s *scanner) rest(pos int) int {
	s.overParts = true
	p := s.part()
	p.Type, p.Body = "application/octet-stream", s.b[pos:]
	s.attach(p)
	for len(s.stack) > 0 {
		s.stack[len(s.stack)-1].closed = true
		s.end(len(s.b))
	}
	return len(s.b)
}

// embedded parses a message that was transferred in base64 or quoted-printable
// against RFC 2046 section 5.2.1, as some mailers do.
func (s *scanner) embedded(p *Part) {
	if !isMessage(p.Type) || p.Container() || s.identity(p) || s.base+len(s.stack) >= s.limits.Depth || s.full() {
		return
	}
	if s.unpack -= len(p.Body); s.unpack < 0 {
		p.add(OverLimit, "encoded messages in each other")
		return
	}
	inside := *s
	p.Parts = []*Part{inside.parse(unwrap(p.Decoded()), s.base+len(s.stack)+1)}
	s.parts, s.inner, s.guesses, s.fields, s.unpack, s.overParts =
		inside.parts, inside.inner, inside.guesses, inside.fields, inside.unpack, inside.overParts
}
