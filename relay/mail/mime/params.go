package mime

import (
	"bytes"
	"cmp"
	"slices"
	"strconv"
	"strings"
)

// Param is one parameter of a structured field. Its name is in lower case, its value is
// decoded to UTF-8.
type Param struct{ Name, Value string }

func param(params []Param, name string) string {
	for _, p := range params {
		if p.Name == name {
			return p.Value
		}
	}
	return ""
}

func (p *Part) multipart() bool { return strings.HasPrefix(p.Type, "multipart/") }

// classify reads what the header says about the body. It does so once, because the charset
// of raw 8-bit values has to be guessed. A Type that the container has set stays if there is
// no Content-Type (RFC 2045 section 5.2).
func (p *Part) classify() {
	p.transfer = p.encoding()
	if v := p.Header.Get("Content-Disposition"); len(v) > 0 {
		p.disposition, p.named = p.decoder.parseValue(v)
	}
	if v := p.Header.Get("Content-Type"); len(v) > 0 {
		p.Type, p.Params = p.decoder.parseValue(v)
		p.Type = mediaType(p.Type)
	} else if p.Type == "" {
		p.Type = "text/plain"
	}
	p.filename = p.nameOfFile()
}

// mediaType corrects what programs write as a media type.
func mediaType(t string) string {
	t = strings.ReplaceAll(OneLine(t), " ", "")
	major, minor, ok := strings.Cut(t, "/")
	if ok && major != "" && minor != "" {
		return t
	}
	switch major {
	case "html":
		return "text/html"
	case "multipart":
		return "multipart/mixed"
	case "", "text", "plain":
		return "text/plain"
	}
	return "application/octet-stream"
}

// parseValue reads a structured value: a token in lower case, and parameters. It accepts
// missing semicolons, duplicates (the first counts), unquoted blanks, unclosed quotes,
// comments, encoded words and raw 8-bit text. mime.ParseMediaType drops all parameters at
// the first duplicate or bare one.
func (d *Decoder) parseValue(v []byte) (string, []Param) {
	v = Unfold(v)
	i := bytes.IndexAny(v, "; \t(\"=")
	if i >= 0 && v[i] == '=' { // only parameters
		return "", d.parseParams(v)
	}
	if i < 0 {
		return token(v), nil
	}
	return token(v[:i]), d.parseParams(v[i:])
}

func token(b []byte) string {
	return strings.ToLower(string(bytes.Trim(b, " \t\"'<>,")))
}

// rawParam is a parameter before RFC 2231 is applied.
type rawParam struct {
	name   string
	value  []byte
	quoted bool
}

func (d *Decoder) parseParams(v []byte) []Param {
	var raw []rawParam
	for len(raw) < 100 {
		v = skipSeparators(v)
		if len(v) == 0 {
			break
		}
		eq := bytes.IndexAny(v, "=;")
		if eq < 0 {
			break // a bare word at the end
		}
		name := token(v[:eq])
		if v[eq] == ';' {
			v = v[eq:]
			continue // a bare word
		}
		if i := strings.LastIndexAny(name, " \t"); i >= 0 {
			name = name[i+1:] // drop words in front: `text/html foo charset=x`
		}
		var p rawParam
		p, v = paramValue(v[eq+1:])
		p.name = name
		raw = append(raw, p)
	}
	return d.joinParams(raw)
}

// skipSeparators skips semicolons, commas, white space and comments.
func skipSeparators(v []byte) []byte {
	for {
		v = bytes.TrimLeft(v, "; \t,")
		if len(v) == 0 || v[0] != '(' {
			return v
		}
		v = skipComment(v)
	}
}

// skipComment skips the comment at the beginning of v (RFC 5322 section 3.2.2). An unclosed
// one extends to the end.
func skipComment(v []byte) []byte {
	depth := 0
	for i := 0; i < len(v); i++ {
		switch v[i] {
		case '\\':
			i++
		case '(':
			depth++
		case ')':
			if depth--; depth == 0 {
				return v[i+1:]
			}
		}
	}
	return nil
}

func paramValue(v []byte) (rawParam, []byte) {
	v = bytes.TrimLeft(v, " \t")
	if len(v) > 0 && v[0] == '"' {
		value, rest := quotedString(v)
		return rawParam{value: value, quoted: true}, rest
	}
	end := bytes.IndexByte(v, ';')
	if end < 0 {
		end = len(v)
	}
	value, rest := v[:end], v[end:]
	if eq := bytes.IndexByte(value, '='); eq >= 0 {
		// Another parameter after a blank: a semicolon is missing.
		if sp := bytes.LastIndexAny(value[:eq], " \t"); sp >= 0 && isToken(bytes.TrimSpace(value[sp:eq])) {
			value, rest = value[:sp], v[sp:]
		}
	}
	return rawParam{value: bytes.TrimSpace(stripComment(value))}, rest
}

func isToken(b []byte) bool {
	for _, c := range b {
		if !nameByte(c) && c != '*' {
			return false
		}
	}
	return len(b) > 0
}

// stripComment drops a comment after a value, but not one inside a file name.
func stripComment(v []byte) []byte {
	if i := bytes.Index(v, []byte(" (")); i > 0 && bytes.HasSuffix(v, []byte(")")) && !bytes.Contains(v[:i], []byte(".")) && bytes.IndexByte(v[:i], ' ') < 0 {
		return v[:i]
	}
	return v
}

// quotedString reads the quoted string at the beginning of v. A backslash only quotes a
// quote or a backslash: Windows programs write paths without doubling it. An unclosed string
// extends to the end.
func quotedString(v []byte) (value, rest []byte) {
	end := 1
	escaped := false
	for end < len(v) && v[end] != '"' {
		if v[end] == '\\' && end+1 < len(v) && (v[end+1] == '"' || v[end+1] == '\\') {
			// In `"C:\"` at the very end, the backslash belongs to a path.
			if v[end+1] == '\\' || bytes.IndexByte(v[end+2:], '"') >= 0 {
				escaped = true
				end++
			}
		}
		end++
	}
	value = v[1:end]
	if end < len(v) {
		rest = v[end+1:]
	}
	if escaped {
		value = unescape(value)
	}
	return value, rest
}

func unescape(v []byte) []byte {
	out := make([]byte, 0, len(v))
	for i := 0; i < len(v); i++ {
		if v[i] == '\\' && i+1 < len(v) && (v[i+1] == '"' || v[i+1] == '\\') {
			i++
		}
		out = append(out, v[i])
	}
	return out
}

// Disposition returns Content-Disposition in lower case: "attachment", "inline", or "" if
// there is none or it is unknown. RFC 2183 section 2.8 makes an unknown one an attachment.
// Mail readers show text nevertheless, and a misspelt word should not make a body a file.
func (p *Part) Disposition() string {
	switch p.disposition {
	case "inline", "attachment":
		return p.disposition
	}
	return ""
}

// Filename returns the part's file name without a path, or "".
func (p *Part) Filename() string { return p.filename }

func (p *Part) nameOfFile() string {
	name := param(p.named, "filename")
	if name == "" {
		name = param(p.named, "name")
	}
	if name == "" {
		if name = p.Param("name"); name == "" {
			name = p.Param("filename")
		}
	}
	if i := strings.LastIndexAny(name, `/\`); i >= 0 {
		name = name[i+1:]
	}
	return strings.TrimSpace(OneLine(name))
}

// ContentID returns the part's Content-ID without angle brackets, or "".
func (p *Part) ContentID() string {
	return strings.Trim(p.decoder.Words(p.Header.Get("Content-ID"), ""), "<> ")
}

// section is one piece of a parameter that RFC 2231 section 3 splits: name*0*=, name*1=, or
// the whole: name*=.
type section struct {
	index    int
	extended bool
	value    []byte
}

// joinParams joins the pieces of RFC 2231 and decodes all values. The extended form counts
// more than the plain one, which is for readers that do not know it (RFC 6266 section 4.3).
// Of two plain ones the first counts.
func (d *Decoder) joinParams(raw []rawParam) []Param {
	params := make([]Param, 0, len(raw))
	var split []string // the names of parameters in pieces, in order
	sections := map[string][]section(nil)
	for _, r := range raw {
		name, s, ok := cutSection(r)
		if !ok {
			// RFC 2047 section 5 forbids encoded words in parameters, but many
			// mailers write them.
			if param(params, r.name) == "" {
				params = append(params, Param{r.name, d.Words(r.value, "")})
			}
			continue
		}
		if sections == nil {
			sections = map[string][]section{}
		}
		if sections[name] == nil {
			split = append(split, name)
		}
		sections[name] = append(sections[name], s)
	}
	for _, name := range split {
		value := d.joinSections(sections[name])
		if i := slices.IndexFunc(params, func(p Param) bool { return p.Name == name }); i >= 0 {
			params[i].Value = value
		} else {
			params = append(params, Param{name, value})
		}
	}
	return params
}

func cutSection(r rawParam) (string, section, bool) {
	name, mark, ok := strings.Cut(r.name, "*")
	if !ok {
		return "", section{}, false
	}
	s := section{value: r.value}
	mark, s.extended = strings.CutSuffix(mark, "*")
	if mark == "" {
		s.extended = true
		return name, s, true
	}
	n, err := strconv.Atoi(mark)
	s.index = n
	return name, s, err == nil && n >= 0
}

func (d *Decoder) joinSections(list []section) string {
	slices.SortStableFunc(list, func(a, b section) int { return cmp.Compare(a.index, b.index) })
	charset := ""
	var bytes []byte
	for i, s := range list {
		v := s.value
		if i == 0 && s.extended {
			// charset'language'value
			if parts := strings.SplitN(string(v), "'", 3); len(parts) == 3 {
				charset, v = parts[0], []byte(parts[2])
			}
		}
		if s.extended {
			v = unpercent(v)
		}
		bytes = append(bytes, v...)
	}
	text, _ := d.Decode(charset, bytes)
	// Some mailers split an encoded word into sections.
	return d.Words([]byte(text), "")
}

func unpercent(v []byte) []byte {
	out := make([]byte, 0, len(v))
	for i := 0; i < len(v); i++ {
		c := v[i]
		if c == '%' {
			if encoded, ok := unhex(v[i+1:]); ok {
				c = encoded
				i += 2
			}
		}
		out = append(out, c)
	}
	return out
}
