package mime

import "strings"

// unflow joins the lines of format=flowed text (RFC 3676): a line that ends in
// a blank goes on in the next of the same quote depth. delSp drops that blank.
func unflow(text string, delSp bool) string {
	var b strings.Builder
	b.Grow(len(text))
	open, depth := false, 0 // whether the last line goes on, and its depth
	for line := range strings.Lines(text) {
		line = strings.TrimSuffix(line, "\n")
		d := len(line) - len(strings.TrimLeft(line, ">"))
		line = strings.TrimPrefix(line[d:], " ") // space-stuffing, section 4.4
		// A mark after a blank is a quotation by a program that does not count
		// them as section 4.5 wants: `>> > text`.
		if open && (d != depth || line == "-- " || strings.HasPrefix(line, ">")) {
			b.WriteByte('\n')
			open = false
		}
		if !open && d > 0 {
			b.WriteString(strings.Repeat(">", d))
			b.WriteByte(' ')
		}
		open = strings.HasSuffix(line, " ") && line != "-- " // section 4.3: a signature's line is fixed
		depth = d
		if open && delSp {
			line = line[:len(line)-1]
		}
		b.WriteString(line)
		if !open {
			b.WriteByte('\n')
		}
	}
	out := b.String()
	if !strings.HasSuffix(text, "\n") {
		out = strings.TrimSuffix(out, "\n")
	}
	return out
}
