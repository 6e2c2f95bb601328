package mime

import (
	"bytes"
	"strings"
)

// Param is one parameter of a structured field: its name in lower case, its
// value decoded to UTF-8.
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

// classify sets what the header says of the body, once: a value of raw 8-bit text
// is not to be guessed at again whenever somebody asks for it. A default that the container
// has set stays when there is none (RFC 2045 section 5.2).
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

// mediaType reads what programs write for a media type.
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

// parseValue reads a structured value: a token in lower case, and parameters.
// It accepts what mime.ParseMediaType does not (deps: it drops every parameter
// at the first duplicate or bare one): missing semicolons, duplicates (the
// first counts), unquoted blanks, unclosed quotes, comments, encoded words and
// raw 8-bit text.
func (d *Decoder) parseValue(v []byte) (string, []Param) {
	v = Unfold(v)
	i := bytes.IndexAny(v, "; \t(\"=")
	if i >= 0 && v[i] == '=' { // no type, only parameters
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

// rawParam is a parameter before RFC 2231.
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
			name = name[i+1:] // words before it: `text/html foo charset=x`
		}
		var p rawParam
		p, v = paramValue(v[eq+1:])
		p.name = name
		raw = append(raw, p)
	}
	return d.joinParams(raw)
}

// skipSeparators drops semicolons, white space and comments.
func skipSeparators(v []byte) []byte {
	for {
		v = bytes.TrimLeft(v, "; \t,")
		if len(v) == 0 || v[0] != '(' {
			return v
		}
		v = skipComment(v)
	}
}

// skipComment drops the comment that v begins with (RFC 5322 section 3.2.2).
// One that is not closed is the rest.
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
		// Another parameter after a blank: the semicolon is missing.
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

// stripComment drops a comment after a value, not one inside a file name.
func stripComment(v []byte) []byte {
	if i := bytes.Index(v, []byte(" (")); i > 0 && bytes.HasSuffix(v, []byte(")")) && !bytes.Contains(v[:i], []byte(".")) && bytes.IndexByte(v[:i], ' ') < 0 {
		return v[:i]
	}
	return v
}

// quotedString reads the quoted string that v begins with. A backslash quotes
// only a quote and itself: Windows programs write paths without doubling it.
// An unclosed one ends with the value.
func quotedString(v []byte) (value, rest []byte) {
	end := 1
	escaped := false
	for end < len(v) && v[end] != '"' {
		if v[end] == '\\' && end+1 < len(v) && (v[end+1] == '"' || v[end+1] == '\\') {
			// `"C:\"` at the very end is a path, not an escaped quote.
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

// Disposition returns Content-Disposition in lower case: "attachment",
// "inline", or "" when there is none or it is unknown. RFC 2183 section 2.8
// would have what is unknown an attachment; other readers show text all the
// same, and so a body does not become a file by a slip in a word.
func (p *Part) Disposition() string {
	switch p.disposition {
	case "inline", "attachment":
		return p.disposition
	}
	return ""
}

// Filename returns the name that the part gives its content, without a path,
// or "".
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

// ContentID returns the part's Content-ID without its angles, or "".
func (p *Part) ContentID() string {
	return strings.Trim(p.decoder.Words(p.Header.Get("Content-ID"), ""), "<> ")
}
