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

	"github.com/smtp2rest/smtp2rest/smtpd/budget"
	"github.com/smtp2rest/smtp2rest/smtpd/reply"
)

func newTestContent() *content { return contentOf(1<<20, 1<<20, 0) }

func contentOf(maxBytes int64, maxLine int, hint int64) *content {
	return &content{
		maxBytes: maxBytes, maxLine: maxLine, hint: hint, header: header{max: maxBytes},
		reserve: func(budget.Kind, int64) *reply.Reply { return nil },
	}
}

// whole is what c has collected.
func whole(t testing.TB, c *content) string {
	t.Helper()
	data, r := c.whole()
	if r != nil {
		t.Fatal(r)
	}
	return string(data)
}

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
			if got := whole(t, c); err != nil || got != want || gotRest != rest {
				t.Fatalf("%s: %q gives %q, %q, %v\nwant %q, %q", name, in, got, gotRest, err, want, rest)
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
		want := regexp.MustCompile(`\r*\n|\r`).ReplaceAllString(in, "\r\n")
		if got := whole(t, c); got != want {
			t.Fatalf("%q gives %q, want %q", in, got, want)
		}
		if rest, _ := io.ReadAll(r); string(rest) != "NOOP" {
			t.Fatalf("%q is left", rest)
		}
		if err := c.readChunk(r, 1); !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Fatalf("a missing chunk gives %v", err)
		}
	})
}

// What is reserved for a message follows what came, and is never less than
// what it takes.
func TestContentReserves(t *testing.T) {
	for _, tt := range []struct {
		name  string
		hint  int64
		come  int
		most  int64 // while it comes
		joins bool  // it takes twice its size for a moment
	}{
		{"nothing", 0, 0, 0, false},
		{"small", 0, 100, 4 << 10, false},
		{"an honest size", 50_000, 50_000, 50_000, false},
		{"an honest size of many pieces", 10 << 20, 10 << 20, 10 << 20, true},
		{"a size that is too small", 1000, 1 << 20, 1<<20 + mostPiece, true},
		{"a size that is far too large", 25 << 20, 1000, 64 << 10, false},
		{"no size", 0, 10 << 20, 10<<20 + mostPiece, true},
		{"as much as is allowed", 0, 25 << 20, 25 << 20, true},
	} {
		var reserved, most int64
		c := contentOf(25<<20, 1<<20, tt.hint)
		c.reserve = func(_ budget.Kind, n int64) *reply.Reply {
			reserved, most = n, max(most, n)
			return nil
		}
		line := []byte(strings.Repeat("x", 998) + "\r\n")
		for left := tt.come; left > 0; left -= len(line) {
			if err := c.add(line[:min(left, len(line))]); err != nil {
				t.Fatal(err)
			}
			if c.held != reserved || c.size > reserved {
				t.Fatalf("%s: %d octets in %d, %d reserved", tt.name, c.size, c.held, reserved)
			}
		}
		if most > tt.most {
			t.Errorf("%s: %d reserved", tt.name, most)
		}
		most = 0
		if got := whole(t, c); len(got) != tt.come || tt.joins && (most < 2*int64(tt.come) || reserved != int64(tt.come)) || !tt.joins && most > c.held {
			t.Errorf("%s: %d octets, %d reserved to join them, then %d", tt.name, len(got), most, reserved)
		}
	}
}

// Where there is no memory, nothing is kept of what came, and what is reserved
// is given back before the rest comes.
func TestContentWithoutMemory(t *testing.T) {
	for _, phase := range []string{"growing", "joining"} {
		reserved := int64(0)
		c := contentOf(1<<20, 1000, 0)
		c.reserve = func(_ budget.Kind, n int64) *reply.Reply {
			if n > 16<<10 {
				return reply.MemorySpent()
			}
			reserved = n
			return nil
		}
		line := []byte(strings.Repeat("x", 98) + "\r\n")
		for range map[string]int{"growing": 1000, "joining": 120}[phase] {
			if err := c.add(line); err != nil {
				t.Fatal(err)
			}
		}
		if _, r := c.whole(); r == nil || r.Code() != 452 || reserved != 0 || c.pieces != nil {
			t.Errorf("%s: %v, %d reserved", phase, r, reserved)
		}
	}
}

// The header ends at the first line that is no field's, and is bounded.
func TestHeaderSize(t *testing.T) {
	const limit = 100
	field := "X-A: " + strings.Repeat("b", 43) + "\r\n" // 50 octets
	for _, tt := range []struct {
		name, text string
		refused    bool
	}{
		{"within", field + field, false},
		{"one octet more", field + field + "\r", true},
		{"the body does not count", field + "\r\n" + strings.Repeat("x\r\n", 100), false},
		{"a bare LF ends a line as well", field + "\n" + strings.Repeat("x: y\n", 100), false},
		{"no header at all", "Hello,\r\n" + strings.Repeat("x: y\r\n", 100), false},
		{"folded without end", "A: b\r\n" + strings.Repeat(" folded\r\n", 20), true},
		{"one line without end", "A: " + strings.Repeat("b", 200), true},
		{"a field without a colon in its first octets", strings.Repeat("a", 60) + ":\r\n" + field, true},
	} {
		for _, by := range []int{1, 7, 1000} {
			c := contentOf(1<<20, 1<<20, 0)
			c.header.max = limit
			for rest := []byte(tt.text); len(rest) > 0; {
				n := min(by, len(rest))
				if err := c.add(rest[:n]); err != nil {
					t.Fatal(err)
				}
				rest = rest[n:]
			}
			c.finish()
			if refused := c.refusal != nil; refused != tt.refused || refused && (c.limit != limitHeader || c.refusal.Code() != 552) {
				t.Errorf("%s, by %d: %v", tt.name, by, c.refusal)
			}
		}
	}
}

// A message beyond the limit takes no memory, is read to its end so that the
// client hears why, and in the end is not.
func TestContentDrains(t *testing.T) {
	c := contentOf(10, 1000, 0)
	block := bytes.Repeat([]byte("x"), 1<<20)
	for range 64 {
		if err := c.add(block); err != nil {
			t.Fatal(err)
		}
	}
	if c.refusal == nil || c.refusal.Code() != 552 || c.pieces != nil {
		t.Errorf("refusal %v, %d pieces kept", c.refusal, len(c.pieces))
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
		c := contentOf(25<<20, 1<<20, int64(len(message)))
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
				c := contentOf(25<<20, 1<<20, 0)
				if err := c.readData(bufio.NewReader(strings.NewReader(message))); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
