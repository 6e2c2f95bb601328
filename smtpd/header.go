package smtpd

import "bytes"

// header bounds the header of a message while it comes: the lines up to the
// first that is empty, or that cannot be a field's, for mail without a header.
type header struct {
	max   int64
	size  int64
	ended bool

	begun int  // octets of the current line
	field bool // it goes on a field, or has a colon
}

// longestName is where a colon must be at the latest: RFC 5322 section 2.1.1.
const longestName = 998

// add takes the next octets of a line. It is false when they are too many.
func (h *header) add(p []byte) bool {
	if h.ended {
		return true
	}
	if h.begun == 0 && len(p) > 0 {
		h.field = p[0] == ' ' || p[0] == '\t'
	}
	h.begun += len(p)
	h.field = h.field || bytes.IndexByte(p, ':') >= 0
	h.size += int64(len(p))
	h.ended = !h.field && h.begun > longestName
	return h.ended || h.size <= h.max
}

// endLine comes behind the line's end.
func (h *header) endLine() {
	h.ended = h.ended || !h.field // an empty line is none either
	h.begun, h.field = 0, false
}

// receivedFields counts the Received fields in the header of a message, which
// every server on its way adds.
func receivedFields(data []byte) int {
	const name = "Received:"
	n := 0
	for len(data) > 0 {
		line, rest, _ := bytes.Cut(data, []byte("\r\n"))
		if len(line) == 0 {
			return n
		}
		if len(line) >= len(name) && bytes.EqualFold(line[:len(name)], []byte(name)) {
			n++
		}
		data = rest
	}
	return n
}
