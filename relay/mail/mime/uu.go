package mime

import (
	"bytes"
	"strconv"
)

// UUFile is a file that was found in a text in uuencode.
type UUFile struct {
	Name string
	Data []byte
	Rest bool // it is what follows the last file that was read, as it stands
}

// CutUU finds the files in a text, up to so many, and returns them and the text
// without them. Only a complete file counts, from "begin 644 name" to "end":
// prose may hold a line that begins with "begin". When there are more files, all
// from the one after the last is one more, as it stands.
func (d *Decoder) CutUU(text []byte, most int) (files []UUFile, rest []byte) {
	if !bytes.HasPrefix(text, []byte("begin ")) && !bytes.Contains(text, []byte("\nbegin ")) {
		return nil, text
	}
	kept := 0
	for pos := 0; pos < len(text); {
		line, next := cutLine(text, pos)
		name, ok := uuBegin(line)
		if !ok {
			pos = next
			continue
		}
		data, end, ok := uuDecode(text, next)
		if !ok {
			pos = max(next, end) // not read twice, so that the cost stays linear
			continue
		}
		rest = append(rest, text[kept:pos]...)
		if len(files) == most {
			return append(files, UUFile{Data: text[pos:], Rest: true}), rest
		}
		files = append(files, UUFile{Name: d.Words(name, ""), Data: data})
		pos, kept = end, end
	}
	if files == nil {
		return nil, text
	}
	return files, append(rest, text[kept:]...)
}

func uuBegin(line []byte) (name []byte, ok bool) {
	rest, ok := bytes.CutPrefix(line, []byte("begin "))
	if !ok {
		return nil, false
	}
	mode, name, ok := bytes.Cut(rest, []byte(" "))
	if _, err := strconv.ParseUint(string(mode), 8, 16); !ok || err != nil || len(mode) < 3 || len(mode) > 4 {
		return nil, false
	}
	return name, true
}

// uuDecode reads lines up to "end". When the file is broken, end is where.
func uuDecode(text []byte, pos int) (data []byte, end int, ok bool) {
	data = []byte{}
	for pos < len(text) {
		line, next := cutLine(text, pos)
		if string(bytes.TrimSpace(line)) == "end" {
			return data, next, true
		}
		if data, ok = appendUU(data, line); !ok {
			return nil, pos, false
		}
		pos = next
	}
	return nil, pos, false
}

// appendUU decodes one line: its length in the first character, then four
// characters for three bytes. Blanks at the end may have been cut in transport.
func appendUU(out, line []byte) ([]byte, bool) {
	if len(bytes.TrimSpace(line)) == 0 {
		return out, true
	}
	n := int(line[0]-' ') & 63
	groups := (n + 2) / 3
	if line[0] < ' ' || line[0] > '`' || len(line) > 1+groups*4+3 {
		return out, false
	}
	at := func(i int) uint32 {
		if i < len(line) && line[i] >= ' ' && line[i] <= '`' {
			return uint32(line[i]-' ') & 63
		}
		return 0
	}
	for g := 0; g < groups; g++ {
		i := 1 + g*4
		v := at(i)<<18 | at(i+1)<<12 | at(i+2)<<6 | at(i+3)
		three := [3]byte{byte(v >> 16), byte(v >> 8), byte(v)}
		out = append(out, three[:min(3, n-g*3)]...)
	}
	return out, true
}
