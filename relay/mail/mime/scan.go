package mime

import (
	"bytes"
	"strings"
)

// Parse reads a mail. The parts are slices of raw, which must not change.
func Parse(raw []byte, limits Limits) *Part {
	root, _ := parse(raw, limits, len(raw))
	return root
}

// Outline is Parse, but does not look into encoded messages and so takes hardly any memory.
// Where there are none, whole is true: the mail need not be parsed again.
func Outline(raw []byte, limits Limits) (root *Part, whole bool) { return parse(raw, limits, 0) }

// parse decodes at most unpack octets of encoded messages.
func parse(raw []byte, limits Limits, unpack int) (root *Part, whole bool) {
	s := &scanner{limits: limits.withDefaults(), decoder: &Decoder{}, unpack: unpack}
	s.guesses = 8
	root = s.parse(unwrap(raw), 0)
	if s.overParts {
		root.add(OverLimit, "too many parts")
	}
	return root, s.unpack >= 0
}

// unwrap removes a byte order mark, and converts line ends of bare CRs (old Macs and some
// devices), without which there would be no lines.
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

// skipBlank drops blank lines before the header. Some programs write them, and they would
// otherwise make the whole header a text.
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

// scanner finds the parts in one pass over the lines that begin with "--". It has a stack of
// open containers and does not recurse: a mail nested 5,000 deep costs no more than a flat
// one of the same size.
type scanner struct {
	b         []byte
	limits    Limits
	stack     []open
	base      int            // depth of the message being parsed, if it is encoded inside another
	levels    map[string]int // the innermost level of each boundary
	parts     int            // leaves so far
	inner     int            // containers so far
	overParts bool           // there were too many parts
	guesses   int            // boundaries that may still be guessed; each costs a pass
	fields    int            // header fields so far
	unpack    int            // octets of encoded messages that may still be decoded
	decoder   *Decoder
}

func (s *scanner) part() *Part { return &Part{decoder: s.decoder} }

// open is a container whose end was not found yet.
type open struct {
	part     *Part
	boundary string // "" for message/rfc822, which ends where its container does
	shadowed int    // the outer level with the same boundary, or -1
	begin    int    // where its body begins
	closed   bool   // its closing boundary was found
	stop     int    // where that is
	children int    // its parts, wherever they were attached
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

// epilogue records text after the last part, which no mail reader shows. It may be the
// footer of a mailing list that does not know MIME.
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

// boundary processes a boundary line of the innermost container.
func (s *scanner) boundary(level int, closing bool, at, next int) int {
	top := &s.stack[level]
	if closing {
		top.closed, top.stop = true, at
		if top.shadowed >= 0 {
			// The container around it has the same boundary. The next one is
			// that container's.
			s.end(next)
		}
		return next
	}
	top.closed = false // parts after a closing boundary count as well
	if s.full() {
		return s.rest(next)
	}
	return s.child(next)
}

// child reads a part that begins at pos and returns where it stopped.
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

// full reports whether there are too many parts. Containers are cheap and have no content,
// so there may be ten times as many.
func (s *scanner) full() bool {
	return s.parts >= s.limits.Parts || s.inner >= 10*s.limits.Parts
}

// attach adds a part to the innermost container within the limit of depth.
func (s *scanner) attach(p *Part) {
	i := len(s.stack) - 1
	if deepest := s.limits.Depth - 1 - s.base; i > deepest {
		i = max(deepest, 0)
		p.add(OverLimit, "nested too deeply")
	}
	s.stack[len(s.stack)-1].children++
	s.stack[i].part.Parts = append(s.stack[i].part.Parts, p)
}

// begin reads the header of a part and opens it. The body of a leaf ends at the next
// boundary.
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
		case p.IsMessage() && !p.Encoded() && !s.full():
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

// skipTo skips one blank line before the header of an embedded message.
func skipTo(b []byte, pos int) int { return len(b) - len(skipBlank(b[pos:])) }

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

// unwind ends all parts inside the given level, at the offset of a boundary line. It returns
// true and an offset if the mail has to be read again from there.
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
		o.part.Type, o.part.Body = "multipart/mixed", nil // too deep: its parts are in an outer part
	case !o.part.multipart():
		s.embedded(o.part)
	case len(o.part.Parts) == 0:
		// A person can read it, whatever it is. RFC 2046 section 5.1.1 requires at
		// least one part.
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

// forget closes the boundary of a container.
func (s *scanner) forget(o open) {
	switch {
	case o.boundary == "":
	case o.shadowed >= 0:
		s.levels[o.boundary] = o.shadowed
	default:
		delete(s.levels, o.boundary)
	}
}

// nextBoundary finds the next open boundary at or after start, which is the beginning of a
// line. at is the end of the text before it. If there is none, level is -1 and at is the
// end of the mail.
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

// lineEnd returns where the text before the line at pos ends. The line break before a
// boundary belongs to the boundary (RFC 2046 section 5.1.1).
func lineEnd(b []byte, start, pos int) int {
	if pos > start && b[pos-1] == '\n' {
		pos--
		if pos > start && b[pos-1] == '\r' {
			pos--
		}
	}
	return pos
}

// rest makes everything from pos on one opaque part, after too many parts.
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

// embedded parses a message that was transferred in base64 or quoted-printable. RFC 2046
// section 5.2.1 forbids that, but some mailers do it.
func (s *scanner) embedded(p *Part) {
	if !p.IsMessage() || p.Container() || !p.Encoded() || s.base+len(s.stack) >= s.limits.Depth || s.full() {
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

func (s *scanner) isOpen(line []byte) bool {
	_, _, ok := s.match(line)
	return ok
}

// match compares a line with all open boundaries at once. Text after a boundary is ignored
// (RFC 2046 section 5.1.1, the note to implementors).
func (s *scanner) match(line []byte) (level int, closing, ok bool) {
	if len(s.levels) == 0 || !bytes.HasPrefix(line, []byte("--")) {
		return 0, false, false
	}
	line = bytes.TrimRight(line[2:], " \t")
	if level, closing, ok = s.boundaryAt(line); ok {
		return level, closing, ok
	}
	if i := bytes.IndexAny(line, " \t"); i > 0 {
		return s.boundaryAt(line[:i])
	}
	return 0, false, false
}

func (s *scanner) boundaryAt(name []byte) (level int, closing, ok bool) {
	if level, ok = s.levels[string(name)]; ok {
		return level, false, true
	}
	if name, cut := bytes.CutSuffix(name, []byte("--")); cut {
		level, ok = s.levels[string(name)]
	}
	return level, true, ok
}

// undeclared recognises a multipart that is not declared: a mail that lost its Content-Type
// but not its parts, or a type with a boundary that is no multipart, as in `text/html;
// boundary=x`. A text that only ends in parts stays one text, because what comes before the
// first boundary would be lost. Some servers return whole mails in bounces like that.
func (s *scanner) undeclared(p *Part, pos int) {
	boundary := ""
	if b := p.Param("boundary"); b != "" && !p.multipart() && !p.IsMessage() {
		if first, _ := cutLine(bytes.TrimLeft(s.b[pos:], "\r\n"), 0); string(bytes.TrimRight(first, " \t")) == "--"+b {
			boundary = b
		}
	} else if len(s.stack) == 0 && !p.Header.Has("Content-Type") {
		var at int
		boundary, at = guessBoundary(s.b[pos:min(len(s.b), pos+2000)])
		if !isPreamble(s.b[pos : pos+at]) {
			boundary = ""
		}
	}
	if boundary != "" {
		p.add(BadBoundary, "a multipart that is not declared")
		p.Type, p.Params = "multipart/mixed", []Param{{"boundary", boundary}}
	}
}

// guess looks for the boundary of the innermost part, if that is a multipart whose own
// boundary is missing or never came. It is the first line that begins with "--" and is
// followed by the header of a part.
func (s *scanner) guess(at int) (int, bool) {
	o := &s.stack[len(s.stack)-1]
	if o.children > 0 || s.guesses == 0 || !o.part.multipart() {
		return 0, false
	}
	boundary, _ := guessBoundary(s.b[o.begin:max(at, o.begin)])
	if boundary == "" || boundary == o.boundary {
		return 0, false
	}
	s.guesses--
	again := *o
	s.forget(again)
	s.stack = s.stack[:len(s.stack)-1]
	again.boundary, again.closed, again.shadowed = boundary, false, -1
	again.part.add(BadBoundary, "the boundary is not the declared one")
	s.push(again)
	return again.begin, true
}

// isPreamble reports whether the text before the first part only says that the mail is in
// MIME.
func isPreamble(b []byte) bool {
	b = bytes.TrimSpace(b)
	return len(b) == 0 || len(b) < 200 && bytes.Contains(bytes.ToUpper(b), []byte("MIME"))
}

// guessBoundary returns what looks like a boundary, and where its line begins.
func guessBoundary(b []byte) (string, int) {
	for pos := 0; pos < len(b); {
		line, next := cutLine(b, pos)
		if len(line) > 2 && len(line) < 200 && bytes.HasPrefix(line, []byte("--")) {
			after, _ := cutLine(b, next)
			name, _, ok := cutField(after)
			if ok && len(name) > 8 && foldEqual(name[:8], "content-") {
				return string(bytes.TrimRight(line[2:], " \t")), pos
			}
		}
		pos = next
	}
	return "", 0
}

// looksLikeHTML reports whether a text without a type is an html document.
func looksLikeHTML(b []byte) bool {
	b = bytes.TrimSpace(b[:min(len(b), 500)])
	for _, tag := range []string{"<!doctype html", "<html", "<body"} {
		if len(b) > len(tag) && foldEqual(b[:len(tag)], tag) {
			return true
		}
	}
	return false
}
