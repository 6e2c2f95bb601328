package mime

import (
	"cmp"
	"slices"
	"strconv"
	"strings"
)

// section is one piece of a parameter that RFC 2231 section 3 splits up:
// name*0*=, name*1=, or the whole of it: name*=.
type section struct {
	index    int
	extended bool
	value    []byte
}

// joinParams puts RFC 2231's pieces together and decodes every value. The
// extended form wins over the plain one, which is there for readers that do
// not know it (RFC 6266 section 4.3); of two plain ones the first counts.
func (d *Decoder) joinParams(raw []rawParam) []Param {
	params := make([]Param, 0, len(raw))
	var split []string // names in pieces, in order
	sections := map[string][]section(nil)
	for _, r := range raw {
		name, s, ok := cutSection(r)
		if !ok {
			// RFC 2047 section 5 forbids encoded words in a parameter, and every
			// mailer of the nineties wrote them there.
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
		if v[i] == '%' && i+2 < len(v) {
			hi, ok1 := unhex(v[i+1])
			lo, ok2 := unhex(v[i+2])
			if ok1 && ok2 {
				out = append(out, hi<<4|lo)
				i += 2
				continue
			}
		}
		out = append(out, v[i])
	}
	return out
}
