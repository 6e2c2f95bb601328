package smtpd

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"slices"

	"github.com/smtp2rest/smtp2rest/smtpd/budget"
	"github.com/smtp2rest/smtp2rest/smtpd/reply"
)

// drainBytes is how much more than the largest size is read of a message that is
// already refused, so that the client reaches its end and gets the reply.
const drainBytes = 64 << 20

// errDrained: a message went on for so long after it was refused that the connection
// has to be closed.
var errDrained = errors.New("smtpd: message far beyond the limit")

// A message is kept in pieces, each as large as all before it together. So nothing is
// copied to make room, and no memory is held for what never comes. An announced size
// makes the first piece larger.
const (
	leastPiece = 4 << 10
	firstPiece = 64 << 10
	mostPiece  = 256 << 10
)

// content collects one message, from DATA or from the chunks of BDAT. Its line ends
// become CRLF, whatever the client used: CRLF, several CRs before LF (what a text mode
// makes of CRLF), a bare LF, or a bare CR.
type content struct {
	pieces [][]byte // full, but for the last
	size   int64    // of all pieces together
	held   int64    // their capacity
	hint   int64    // the size the client announced, 0 for none

	maxBytes int64
	maxLine  int
	reserve  func(kind budget.Kind, n int64) *reply.Reply // reserves n octets of memory in all, or returns why not

	header  header
	line    int // octets in the current line so far
	crs     int // CRs whose meaning depends on what follows
	read    int64
	refusal *reply.Reply // why nothing is collected any more
	limit   limit        // that was met; "" for none, and for one that reserve has counted
}

// add takes the next octets of the message. It keeps nothing of p.
func (c *content) add(p []byte) error {
	c.read += int64(len(p))
	if c.refusal != nil {
		if c.read > c.maxBytes+max(c.maxBytes, drainBytes) {
			return errDrained
		}
		return nil
	}
	for len(p) > 0 {
		if c.crs > 0 && p[0] != '\r' {
			p = c.endCRs(p)
			continue
		}
		if i := bytes.IndexByte(p, '\n'); c.crs == 0 && i > 0 && bytes.IndexByte(p[:i], '\r') == i-1 { // as almost every line
			c.put(p[:i+1])
			c.lineEnded()
			p = p[i+1:]
			continue
		}
		i := bytes.IndexAny(p, "\r\n")
		if i < 0 {
			c.put(p)
			return nil
		}
		c.put(p[:i])
		if p[i] == '\r' {
			if c.crs++; int64(c.crs) > c.maxBytes { // so that they, too, have a bound
				c.refuse(limitSize, reply.TooLarge())
				return nil
			}
		} else {
			c.endLine()
		}
		p = p[i+1:]
	}
	return nil
}

// endCRs decides what the CRs before p were: with a LF they are one line end, else
// each is one. It returns the rest of p.
func (c *content) endCRs(p []byte) []byte {
	if p[0] == '\n' {
		c.crs = 0
		c.endLine()
		return p[1:]
	}
	for ; c.crs > 0; c.crs-- {
		c.endLine()
	}
	return p
}

func (c *content) endLine() {
	c.put([]byte("\r\n"))
	c.lineEnded()
}

func (c *content) lineEnded() {
	c.header.endLine()
	c.line = 0
}

func (c *content) put(p []byte) {
	if c.refusal != nil {
		return
	}
	c.line += len(p)
	switch {
	case c.size+int64(len(p)) > c.maxBytes:
		c.refuse(limitSize, reply.TooLarge())
		return
	case c.line > c.maxLine+len("\r\n"):
		c.refuse(limitLine, reply.BodyLineTooLong())
		return
	case !c.header.add(p):
		c.refuse(limitHeader, reply.HeaderTooLarge())
		return
	}
	for len(p) > 0 && c.refusal == nil {
		last := len(c.pieces) - 1
		if last < 0 || len(c.pieces[last]) == cap(c.pieces[last]) {
			c.grow()
			continue
		}
		n := min(len(p), cap(c.pieces[last])-len(c.pieces[last]))
		c.pieces[last] = append(c.pieces[last], p[:n]...)
		c.size += int64(n)
		p = p[n:]
	}
}

// refuse stops collecting. It gives the memory back at once, however long the rest
// of the message takes.
func (c *content) refuse(l limit, r *reply.Reply) {
	c.refusal, c.limit = r, l
	c.pieces, c.held = nil, 0
	_ = c.reserve(budget.Reading, 0) // less is never refused
}

// grow adds a piece.
func (c *content) grow() {
	n := min(max(c.size, firstHeld(c.hint)), mostPiece)
	if left := c.hint - c.size; left > 0 {
		n = min(n, left)
	}
	n = min(n, c.maxBytes-c.size)
	if r := c.reserve(budget.Reading, c.held+n); r != nil {
		c.refuse("", r)
		return
	}
	c.held += n
	c.pieces = append(c.pieces, make([]byte, 0, n))
}

// firstHeld is the memory reserved for a message before it begins.
func firstHeld(hint int64) int64 { return max(leastPiece, min(hint, firstPiece)) }

// whole returns the message in one piece, or the reply that refuses it.
func (c *content) whole() ([]byte, *reply.Reply) {
	if c.refusal != nil {
		return nil, c.refusal
	}
	if len(c.pieces) == 1 {
		_ = c.reserve(budget.Dealing, c.held) // as much is never refused
		return c.pieces[0], nil
	}
	if r := c.reserve(budget.Dealing, c.held+c.size); r != nil {
		c.refuse("", r)
		return nil, r
	}
	data := slices.Concat(c.pieces...)
	c.pieces = nil
	_ = c.reserve(budget.Dealing, c.size) // less is never refused
	return data, nil
}

// finish ends the message.
func (c *content) finish() {
	for ; c.crs > 0; c.crs-- {
		c.endLine()
	}
}

// readData reads what follows DATA up to and including CRLF.CRLF. Nothing else ends
// it: a server that also accepts a bare LF or CR there reads other messages than the
// relay before it did, and mail can be smuggled through.
func (c *content) readData(r *bufio.Reader) error {
	const (
		afterCRLF  = iota // at the start of a line, as RFC 5321 has it
		afterLF           // after a bare LF
		withinLine        // anywhere else
	)
	at, afterCR := afterCRLF, false
	for {
		// A line that fits r's buffer comes in one piece, so the last one,
		// which starts right behind a LF, does.
		p, err := r.ReadSlice('\n')
		if err != nil && !errors.Is(err, bufio.ErrBufferFull) {
			return unexpected(err)
		}
		whole := p
		switch {
		case at == afterCRLF && string(p) == ".\r\n":
			c.finish()
			return nil
		case at == afterCRLF && p[0] == '.':
			p = p[1:] // RFC 5321 section 4.5.2
		case at == afterLF && bytes.HasPrefix(p, []byte("..")):
			// Python's smtplib doubles the dot here too; others rarely have one
			// here. A single dot was not doubled, and stays.
			p = p[1:]
		}
		switch {
		case whole[len(whole)-1] != '\n':
			at = withinLine
		case bytes.HasSuffix(whole, []byte("\r\n")), len(whole) == 1 && afterCR:
			at = afterCRLF
		default:
			at = afterLF
		}
		afterCR = whole[len(whole)-1] == '\r'
		if err := c.add(p); err != nil {
			return err
		}
	}
}

// readChunk reads the octets that follow a BDAT: size of them, or it is an error.
func (c *content) readChunk(r *bufio.Reader, size int64) error {
	for size > 0 {
		if _, err := r.Peek(1); err != nil {
			return unexpected(err)
		}
		n := int(min(size, int64(r.Buffered())))
		p, _ := r.Peek(n)
		if err := c.add(p); err != nil {
			return err
		}
		_, _ = r.Discard(n) // they are in the buffer
		size -= int64(n)
	}
	return nil
}

func unexpected(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

// header bounds the header of a message while it comes. The header ends at the first
// line that is empty or, as in mail without a header, cannot belong to a field.
type header struct {
	max   int64
	size  int64
	ended bool

	begun int  // octets of the current line
	field bool // the current line has a colon or continues a field
}

// longestName is the longest a line can be without a colon: RFC 5322 section 2.1.1.
const longestName = 998

// add counts the next octets of a line. It is false when the header is too large.
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

// endLine is called at the end of a line.
func (h *header) endLine() {
	h.ended = h.ended || !h.field // an empty line belongs to no field either
	h.begun, h.field = 0, false
}

// receivedFields counts the Received fields in the header of a message. Every server
// on its way adds one.
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
