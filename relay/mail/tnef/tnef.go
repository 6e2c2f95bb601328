// Package tnef unpacks Outlook's winmail.dat (MS-OXTNEF): the files in it and the html
// body. It is pure. relay/mail uses it for parts of type application/ms-tnef, which no mail
// reader but Outlook shows.
package tnef

import (
	"encoding/binary"
	"errors"
	"strings"
	"unicode/utf16"
)

// Message is the content of a winmail.dat.
type Message struct {
	Files []File
	HTML  []byte // in the charset that it declares itself; nil: none
}

// File is an attached file.
type File struct {
	Name string
	Data []byte
}

// ErrFormat says that the data is no TNEF stream.
var ErrFormat = errors.New("tnef: not a TNEF stream")

// The attributes and properties that are read. The others are formatting.
const (
	signature = 0x223E9F78

	attAttachRendData = 0x9002 // begins a file
	attAttachTitle    = 0x8010
	attAttachData     = 0x800F
	attMAPIProps      = 0x9003 // the message's properties
	attAttachment     = 0x9005 // a file's properties

	propBodyHTML     = 0x1013
	propLongFilename = 0x3707
	propFilename     = 0x3704
)

// ErrFiles says that there are more files than the caller accepts.
var ErrFiles = errors.New("tnef: too many files")

// Parse reads a stream with at most the given number of files. Of a truncated stream it
// returns what it could read.
func Parse(b []byte, files int) (*Message, error) {
	if len(b) < 6 || binary.LittleEndian.Uint32(b) != signature {
		return nil, ErrFormat
	}
	// Counted first: one that has too many is to take nothing.
	n := 0
	attributes(b[6:], func(id uint16, _ []byte) {
		if id == attAttachRendData {
			n++
		}
	})
	if n > files {
		return nil, ErrFiles
	}
	m := &Message{Files: make([]File, 0, n)}
	attributes(b[6:], m.attribute)
	return m, nil
}

// attributes calls fn for each attribute, up to one that is not whole.
func attributes(b []byte, fn func(id uint16, data []byte)) {
	for len(b) >= 9 {
		size := uint64(binary.LittleEndian.Uint32(b[5:]))
		if size > uint64(len(b)-9) {
			return
		}
		fn(binary.LittleEndian.Uint16(b[1:]), b[9:9+size])
		b = b[9+size:]
		b = b[min(2, len(b)):] // checksum
	}
}

func (m *Message) attribute(id uint16, data []byte) {
	last := len(m.Files) - 1
	switch {
	case id == attMAPIProps:
		properties(data, func(prop uint16, value []byte, _ bool) {
			if prop == propBodyHTML {
				m.HTML = value
			}
		})
	case id == attAttachRendData:
		m.Files = append(m.Files, File{})
	case last < 0:
	case id == attAttachTitle && m.Files[last].Name == "":
		m.Files[last].Name = strings.TrimRight(string(data), "\x00")
	case id == attAttachData:
		m.Files[last].Data = data
	case id == attAttachment:
		properties(data, func(prop uint16, value []byte, wide bool) {
			if prop == propLongFilename || prop == propFilename && m.Files[last].Name == "" {
				m.Files[last].Name = text(value, wide)
			}
		})
	}
}

func text(b []byte, wide bool) string {
	if !wide {
		return strings.TrimRight(string(b), "\x00")
	}
	units := make([]uint16, len(b)/2)
	for i := range units {
		units[i] = binary.LittleEndian.Uint16(b[2*i:])
	}
	return strings.TrimRight(string(utf16.Decode(units)), "\x00")
}

// properties calls fn for each MAPI property of variable length. It stops at the first
// property that it cannot skip.
func properties(b []byte, fn func(prop uint16, value []byte, wide bool)) {
	r := reader{b: b}
	count := r.uint32()
	for ; count > 0 && !r.bad; count-- {
		kind, prop := r.uint16(), r.uint16()
		if prop >= 0x8000 {
			r.name()
		}
		values := uint32(1)
		multiple := kind&0x1000 != 0
		kind &^= 0x1000
		size := fixedSize(kind)
		if multiple || size == 0 {
			values = r.uint32()
		}
		for ; values > 0 && !r.bad; values-- {
			if size > 0 {
				r.take(size)
				continue
			}
			value := r.padded(r.uint32())
			if !r.bad {
				fn(prop, value, kind == 0x1F)
			}
		}
	}
}

// fixedSize returns the length of a value of this type with its padding, or 0 if the
// length is written before the value.
func fixedSize(kind uint16) uint32 {
	switch kind {
	case 0x02, 0x03, 0x04, 0x0A, 0x0B:
		return 4
	case 0x05, 0x06, 0x07, 0x14, 0x40:
		return 8
	case 0x48:
		return 16
	}
	return 0
}

// reader reads little-endian values. After the end it is bad and reads zeros.
type reader struct {
	b   []byte
	bad bool
}

func (r *reader) take(n uint32) []byte {
	if uint64(n) > uint64(len(r.b)) {
		r.b, r.bad = nil, true
		return nil
	}
	v := r.b[:n]
	r.b = r.b[n:]
	return v
}

// padded takes a value that is padded to a multiple of four bytes.
func (r *reader) padded(n uint32) []byte {
	v := r.take(n)
	if pad := -n & 3; uint64(pad) <= uint64(len(r.b)) {
		r.take(pad)
	}
	return v
}

func (r *reader) uint16() uint16 {
	if v := r.take(2); v != nil {
		return binary.LittleEndian.Uint16(v)
	}
	return 0
}

func (r *reader) uint32() uint32 {
	if v := r.take(4); v != nil {
		return binary.LittleEndian.Uint32(v)
	}
	return 0
}

// name skips the name of a named property.
func (r *reader) name() {
	r.take(16)
	if r.uint32() == 0 {
		r.take(4)
		return
	}
	r.padded(r.uint32())
}
