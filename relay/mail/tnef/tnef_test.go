package tnef

import (
	"encoding/binary"
	"errors"
	"testing"
	"unicode/utf16"
)

func attribute(id uint32, data string) string {
	b := []byte{1}
	b = binary.LittleEndian.AppendUint32(b, id)
	b = binary.LittleEndian.AppendUint32(b, uint32(len(data)))
	return string(b) + data + "\x00\x00" // no reader checks the checksum
}

func property(kind, id uint16, value string) string {
	var b []byte
	b = binary.LittleEndian.AppendUint16(b, kind)
	b = binary.LittleEndian.AppendUint16(b, id)
	b = binary.LittleEndian.AppendUint32(b, 1)
	b = binary.LittleEndian.AppendUint32(b, uint32(len(value)))
	return string(b) + value + "\x00\x00\x00"[:-len(value)&3]
}

func count(n uint32) string { return string(binary.LittleEndian.AppendUint32(nil, n)) }

func wide(s string) string {
	var b []byte
	for _, u := range utf16.Encode([]rune(s)) {
		b = binary.LittleEndian.AppendUint16(b, u)
	}
	return string(b) + "\x00\x00"
}

const head = "\x78\x9f\x3e\x22\x01\x00"

func TestParse(t *testing.T) {
	named := "\x03\x00\x01\x80" + "0123456789abcdef" + "\x00\x00\x00\x00" + "\x05\x00\x00\x00" + "\x07\x00\x00\x00"
	stream := head +
		attribute(0x00069003, count(3)+"\x03\x00\x17\x00\x01\x00\x00\x00"+named+property(0x0102, propBodyHTML, "<p>body</p>")) +
		attribute(0x00069002, "rendering data") +
		attribute(0x00018010, "SHORT~1.PDF\x00") +
		attribute(0x0006800F, "data one") +
		attribute(0x00069005, count(2)+property(0x001E, propFilename, "short.pdf\x00")+property(0x001F, propLongFilename, wide("Grüße.pdf"))) +
		attribute(0x00069002, "") +
		attribute(0x00018010, "two.txt\x00") +
		attribute(0x0006800F, "data two")
	m, err := Parse([]byte(stream), 10)
	if err != nil {
		t.Fatal(err)
	}
	if string(m.HTML) != "<p>body</p>" || len(m.Files) != 2 {
		t.Fatalf("html %q, %d files", m.HTML, len(m.Files))
	}
	for i, want := range []File{{"Grüße.pdf", []byte("data one")}, {"two.txt", []byte("data two")}} {
		if f := m.Files[i]; f.Name != want.Name || string(f.Data) != string(want.Data) {
			t.Errorf("got %q %q, want %q %q", f.Name, f.Data, want.Name, want.Data)
		}
	}
	cut, err := Parse([]byte(stream[:len(stream)-5]), 10)
	if err != nil || len(cut.Files) != 2 || string(cut.Files[0].Data) != "data one" {
		t.Errorf("cut short: %v, %v", cut, err)
	}
}

func TestParseOther(t *testing.T) {
	for _, s := range []string{"", "x", "not TNEF at all"} {
		if _, err := Parse([]byte(s), 10); !errors.Is(err, ErrFormat) {
			t.Errorf("%q: %v", s, err)
		}
	}
}

// FuzzParse checks that no input causes a panic, and that everything returned was in
// it.
func FuzzParse(f *testing.F) {
	f.Add([]byte(head + attribute(0x00069003, count(1)+property(0x0102, propBodyHTML, "<p>"))))
	f.Add([]byte(head + attribute(0x00069002, "") + attribute(0x00069005, count(9)+property(0x101F, propLongFilename, "ab"))))
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := Parse(b, 10)
		if err != nil {
			return
		}
		total := len(m.HTML)
		for _, file := range m.Files {
			total += len(file.Data)
		}
		if total > len(b) {
			t.Errorf("%d bytes out of %d", total, len(b))
		}
	})
}
