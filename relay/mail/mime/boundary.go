package mime

import "bytes"

func (s *scanner) isOpen(line []byte) bool {
	_, _, ok := s.match(line)
	return ok
}

// match compares a line with every boundary in force at once. Words behind a
// boundary do not count (RFC 2046 section 5.1.1, the note to implementors).
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

// undeclared recognises a multipart that does not say so: a mail whose
// Content-Type was lost but not its parts, and a type that has a boundary and
// is none, as in `text/html; boundary=x`. A text that only ends in such parts,
// as the bounces of some servers that return the whole mail, stays one text:
// what stands before the first boundary would be lost.
func (s *scanner) undeclared(p *Part, pos int) {
	boundary := ""
	if b := p.Param("boundary"); b != "" && !p.multipart() && !isMessage(p.Type) {
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

// guess looks for the boundary of the innermost part, when that is a multipart
// whose own boundary was missing or never came: it is the first line that
// begins with "--" and has a part's header after it.
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

// isPreamble reports whether a text before the first part says nothing but
// that the mail is in MIME.
func isPreamble(b []byte) bool {
	b = bytes.TrimSpace(b)
	return len(b) == 0 || len(b) < 200 && bytes.Contains(bytes.ToUpper(b), []byte("MIME"))
}

// guessBoundary returns what looks like a boundary and where its line begins.
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

// looksLikeHTML reports whether a text without a type of its own is a document.
func looksLikeHTML(b []byte) bool {
	b = bytes.TrimSpace(b[:min(len(b), 500)])
	for _, tag := range []string{"<!doctype html", "<html", "<body"} {
		if len(b) > len(tag) && foldEqual(b[:len(tag)], tag) {
			return true
		}
	}
	return false
}
