package sandbox

import (
	"bytes"
	"encoding/json"
	"fmt"
)

// maxDepth is encoding/json's own bound on nesting, so that the two agree on
// what is JSON.
const maxDepth = 10000

// syntaxError is a body that is not JSON.
type syntaxError struct{ offset int }

func (e *syntaxError) Error() string { return fmt.Sprintf("invalid JSON at byte %d", e.offset) }

// scanner walks JSON text once. encoding/json is not used for it because its
// decoders keep the last of two equal keys in silence, do not say which field
// was wrong, and at 18 KiB a mail would take half of the sandbox's time.
// The body is known to be valid UTF-8 before it comes here.
type scanner struct {
	b     []byte
	i     int
	depth int
}

func (s *scanner) fail() error { return &syntaxError{offset: s.i} }

// next skips white space and returns the byte that follows, 0 at the end.
func (s *scanner) next() byte {
	for ; s.i < len(s.b); s.i++ {
		switch s.b[s.i] {
		case ' ', '\t', '\r', '\n':
		default:
			return s.b[s.i]
		}
	}
	return 0
}

// end fails unless only white space is left.
func (s *scanner) end() error {
	s.next()
	if s.i < len(s.b) {
		return s.fail()
	}
	return nil
}

// text reads a string and returns it as written, quotes included.
func (s *scanner) text() ([]byte, error) {
	if s.next() != '"' {
		return nil, s.fail()
	}
	start := s.i
	for s.i++; s.i < len(s.b); s.i++ {
		switch c := s.b[s.i]; {
		case c == '"':
			s.i++
			return s.b[start:s.i], nil
		case c == '\\':
			if err := s.escape(); err != nil {
				return nil, err
			}
		case c < 0x20:
			return nil, s.fail()
		}
	}
	return nil, s.fail()
}

// escape reads what follows a backslash, up to its last byte.
func (s *scanner) escape() error {
	s.i++
	if s.i >= len(s.b) {
		return s.fail()
	}
	switch s.b[s.i] {
	case '"', '\\', '/', 'b', 'f', 'n', 'r', 't':
		return nil
	case 'u':
	default:
		return s.fail()
	}
	for range 4 {
		s.i++
		if s.i >= len(s.b) || !isHex(s.b[s.i]) {
			return s.fail()
		}
	}
	return nil
}

// decode turns a string as written into what it means.
func decode(written []byte) string {
	if bytes.IndexByte(written, '\\') < 0 {
		return string(written[1 : len(written)-1])
	}
	var v string
	_ = json.Unmarshal(written, &v) // text has checked it already
	return v
}

// object reads an object and calls member with each key, standing before the
// value, which member must read. An error that is no syntax error is returned
// too, at once.
func (s *scanner) object(member func(key string) error) error {
	return s.list('{', '}', func() error {
		key, err := s.text()
		if err != nil {
			return err
		}
		if s.next() != ':' {
			return s.fail()
		}
		s.i++
		return member(decode(key))
	})
}

// list reads what stands between two brackets, item after item.
func (s *scanner) list(open, shut byte, item func() error) error {
	if s.next() != open {
		return s.fail()
	}
	if s.depth++; s.depth > maxDepth {
		return s.fail()
	}
	s.i++
	if s.next() != shut {
		for {
			if err := item(); err != nil {
				return err
			}
			if s.next() != ',' {
				break
			}
			s.i++
		}
	}
	if s.next() != shut {
		return s.fail()
	}
	s.i++
	s.depth--
	return nil
}

// skip reads a value of any kind.
func (s *scanner) skip() error {
	switch c := s.next(); {
	case c == '{':
		return s.list('{', '}', func() error {
			if _, err := s.text(); err != nil {
				return err
			}
			if s.next() != ':' {
				return s.fail()
			}
			s.i++
			return s.skip()
		})
	case c == '[':
		return s.list('[', ']', s.skip)
	case c == '"':
		_, err := s.text()
		return err
	case c == '-' || isDigit(c):
		return s.number()
	case c == 't':
		return s.word("true")
	case c == 'f':
		return s.word("false")
	case c == 'n':
		return s.word("null")
	default:
		return s.fail()
	}
}

func (s *scanner) word(w string) error {
	if !bytes.HasPrefix(s.b[s.i:], []byte(w)) {
		return s.fail()
	}
	s.i += len(w)
	return nil
}

// number reads a number by the grammar of RFC 8259, section 6.
func (s *scanner) number() error {
	s.take('-')
	switch {
	case s.take('0'): // no digit may follow a leading zero
	case !s.digits():
		return s.fail()
	}
	if s.take('.') && !s.digits() {
		return s.fail()
	}
	if s.take('e') || s.take('E') {
		if !s.take('+') {
			s.take('-')
		}
		if !s.digits() {
			return s.fail()
		}
	}
	return nil
}

// take reads c if it comes next.
func (s *scanner) take(c byte) bool {
	if s.i < len(s.b) && s.b[s.i] == c {
		s.i++
		return true
	}
	return false
}

// digits reads digits and reports whether there was one.
func (s *scanner) digits() bool {
	start := s.i
	for s.i < len(s.b) && isDigit(s.b[s.i]) {
		s.i++
	}
	return s.i > start
}

func isDigit(c byte) bool { return '0' <= c && c <= '9' }

func isHex(c byte) bool {
	return isDigit(c) || 'a' <= c && c <= 'f' || 'A' <= c && c <= 'F'
}
