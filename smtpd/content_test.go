package smtpd

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"regexp"
	"strings"
	"testing"
	"testing/iotest"
)

func newTestContent() *content { return &content{maxBytes: 1 << 20, maxLine: 1 << 20} }

// reference says the slow and plain way what readData does: what the message
// is, and what follows it. ok is false when the end is missing.
func reference(in string) (message, rest string, ok bool) {
	raw, rest, ok := strings.Cut("\r\n"+in, "\r\n.\r\n")
	raw = regexp.MustCompile(`\r\n\.`).ReplaceAllString(raw+"\r\n", "\r\n")
	raw = regexp.MustCompile(`([^\r])\n\.\.`).ReplaceAllString(raw, "$1\n.")
	raw = strings.TrimPrefix(raw, "\r\n")
	raw = regexp.MustCompile(`\r*\n|\r`).ReplaceAllString(raw, "\r\n")
	return raw, rest, ok
}

func readBack(in io.Reader) (*content, string, error) {
	c, r := newTestContent(), bufio.NewReaderSize(in, 16)
	err := c.readData(r)
	rest, _ := io.ReadAll(r)
	return c, string(rest), err
}

// FuzzReadData compares readData with the reference, in segments of any size.
func FuzzReadData(f *testing.F) {
	for _, s := range []string{
		".\r\n", "\r\n.\r\n", "a\r\n.\r\nQUIT\r\n", "a\r\r\n.\r\n", "a\n.\nb\r\n.\r\n", "a\r.\r\nb\r\n.\r\n", "\r\n.\n\r\n.\r\n",
		"..\r\n.\r\n", "a\n..\n.b\r\n.\r\n", ".\r\r\n.\r\n", ".\rX\r\n.\r\n", "a\r\n.", "a\r\n.\r", "", "\n\n.\r\n\r\n.\r\n",
		strings.Repeat("x", 15) + "\r\n.\r\n", strings.Repeat("x", 16) + "\r\n.\r\n", strings.Repeat("\r", 40) + "\n.\r\n",
		strings.Repeat("x", 14) + "\r\r\n.\r\n", "\r\n..\r\n...\r\n.\r\n", "x\n.\r\n.\r\n", "\x00\r\n\x00.\r\n.\r\n", "\r\n\n.\r\n.\r\n",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, in string) {
		want, rest, complete := reference(in)
		for name, r := range map[string]io.Reader{
			"whole": strings.NewReader(in), "octets": iotest.OneByteReader(strings.NewReader(in)), "halves": iotest.HalfReader(strings.NewReader(in)),
		} {
			c, gotRest, err := readBack(r)
			if !complete {
				if !errors.Is(err, io.ErrUnexpectedEOF) {
					t.Fatalf("%s: %q has no end, and gives %v", name, in, err)
				}
				continue
			}
			if err != nil || string(c.buf) != want || gotRest != rest {
				t.Fatalf("%s: %q gives %q, %q, %v\nwant %q, %q", name, in, c.buf, gotRest, err, want, rest)
			}
		}
	})
}

// FuzzReadChunks cuts content into chunks at any place.
func FuzzReadChunks(f *testing.F) {
	f.Add("a\r\nb\r\n", 2)
	f.Add("\r\r\n\n\r", 3)
	f.Fuzz(func(t *testing.T, in string, cut int) {
		cut = max(0, min(cut, len(in)))
		c, r := newTestContent(), bufio.NewReaderSize(strings.NewReader(in+"NOOP"), 16)
		for _, n := range []int{cut, len(in) - cut} {
			if err := c.readChunk(r, int64(n)); err != nil {
				t.Fatal(err)
			}
		}
		c.finish()
		if want := regexp.MustCompile(`\r*\n|\r`).ReplaceAllString(in, "\r\n"); string(c.buf) != want {
			t.Fatalf("%q gives %q, want %q", in, c.buf, want)
		}
		if rest, _ := io.ReadAll(r); string(rest) != "NOOP" {
			t.Fatalf("%q is left", rest)
		}
		if err := c.readChunk(r, 1); !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Fatalf("a missing chunk gives %v", err)
		}
	})
}

// The memory of a message follows what came, not what was announced.
func TestContentGrows(t *testing.T) {
	for _, tt := range []struct {
		name        string
		hint        int64
		come        int
		least, most int
	}{
		{"no size", 0, 100, 100, 4 << 10},
		{"an honest size", 10 << 20, 10 << 20, 10 << 20, 10 << 20},
		{"a lie", 10 << 20, 1000, 1000, 4 << 10},
		{"a small size", 50 << 10, 1000, 50 << 10, 50 << 10},
		{"beyond the limit", 1 << 40, 20 << 20, 20 << 20, 25 << 20},
	} {
		c := &content{hint: tt.hint, maxBytes: 25 << 20, maxLine: 1 << 20}
		line := []byte(strings.Repeat("x", 998) + "\r\n")
		for left := tt.come; left > 0; left -= len(line) {
			if err := c.add(line[:min(left, len(line))]); err != nil {
				t.Fatal(err)
			}
		}
		if len(c.buf) != tt.come || cap(c.buf) < tt.least || cap(c.buf) > tt.most {
			t.Errorf("%s: %d octets in %d", tt.name, len(c.buf), cap(c.buf))
		}
	}
}

// A message beyond the limit takes no memory, is read to its end so that the
// client hears why, and in the end is not.
func TestContentDrains(t *testing.T) {
	c := &content{maxBytes: 10, maxLine: 1000}
	block := bytes.Repeat([]byte("x"), 1<<20)
	for range 64 {
		if err := c.add(block); err != nil {
			t.Fatal(err)
		}
	}
	if c.refusal == nil || c.refusal.Code() != 552 || c.buf != nil {
		t.Errorf("refusal %v, %d octets kept", c.refusal, len(c.buf))
	}
	if err := c.add(block); !errors.Is(err, errDrained) {
		t.Errorf("got %v", err)
	}
}

func BenchmarkReadData(b *testing.B) {
	message := strings.Repeat(strings.Repeat("x", 76)+"\r\n", 10<<20/78) + ".\r\n"
	b.SetBytes(int64(len(message)))
	b.ReportAllocs()
	for b.Loop() {
		c := &content{maxBytes: 25 << 20, maxLine: 1 << 20, hint: int64(len(message))}
		if err := c.readData(bufio.NewReader(strings.NewReader(message))); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkReadDataHostile(b *testing.B) {
	for name, unit := range map[string]string{"LF": "\n", "CR": "\r", "CR x": "\rx", "dots": "\r\n.."} {
		b.Run(name, func(b *testing.B) {
			message := strings.Repeat(unit, 10<<20/len(unit)) + "\r\n.\r\n"
			b.SetBytes(int64(len(message)))
			for b.Loop() {
				c := &content{maxBytes: 25 << 20, maxLine: 1 << 20}
				if err := c.readData(bufio.NewReader(strings.NewReader(message))); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
