package terminal

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"
	"unicode"

	"io"

	"github.com/smtp2rest/smtp2rest/relay/admin"
	"github.com/smtp2rest/smtp2rest/relay/queue"
)

// A list that a script reads must not look whole when it is not.
func TestJSONThatIsCutShortIsNoJSON(t *testing.T) {
	var out bytes.Buffer
	err := PrintJSONList(&out, Paging{}, admin.All(t.Context(), halfList{}, admin.Filter{}))
	if !errors.Is(err, queue.ErrClosed) || json.Valid(out.Bytes()) {
		t.Errorf("%v with %q", err, out.String())
	}
}

// halfList fails on its second page.
type halfList struct{ admin.Admin }

// A table of any length is printed in chunks.
func TestLongTable(t *testing.T) {
	var out bytes.Buffer
	tb := newTable(&Terminal{Out: &out}, []string{"N", "TEXT"})
	const rows = 10_000
	for i := range rows {
		if err := tb.add([]string{fmt.Sprint(i), "x"}); err != nil {
			t.Fatal(err)
		}
		if len(tb.rows) > tableChunk {
			t.Fatalf("%d rows are kept", len(tb.rows))
		}
	}
	if err := tb.flush(); err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	if len(lines) != rows+1 || lines[0] != "N    TEXT" && lines[0] != "N    TEXT"[:len(lines[0])] {
		t.Errorf("%d lines, beginning with %q", len(lines), lines[0])
	}
	if lines[rows] != "9999  x" {
		t.Errorf("the last line is %q", lines[rows])
	}
}

func TestPrintable(t *testing.T) {
	for in, want := range map[string]string{
		"a@b.example":         "a@b.example",
		"Jörg <j@ü.example>":  "Jörg <j@ü.example>",
		"a\x1b[2Jb":           `a\x1b[2Jb`,
		"a\r\nb\tc":           `a\r\nb\tc`,
		"\u202ex\u2028\u200b": `\u202ex\u2028\u200b`,
		"\u009b31m\x7f":       `\u009b31m\x7f`,
		"a\xffb":              `a\ufffdb`,
		"\U000e0041":          `\U000e0041`,
	} {
		if got := Printable(in); got != want {
			t.Errorf("printable(%q) = %q, want %q", in, got, want)
		}
		staysHarmless(t, Printable(in))
	}
}

// JSON means the same with and without the escapes.
func TestPlainJSON(t *testing.T) {
	in := "\x1b[2J \u009b \u202e \U000e0041 ü <&> \x7f \u2028 \"\\"
	line, err := PlainJSON(map[string]string{"a": in})
	if err != nil {
		t.Fatal(err)
	}
	staysHarmless(t, line)
	var out map[string]string
	if err := json.Unmarshal([]byte(line), &out); err != nil || out["a"] != in {
		t.Errorf("%s is read as %q (%v)", line, out["a"], err)
	}
	if strings.ContainsRune(line, '\n') || !strings.Contains(line, "<&>") {
		t.Errorf("written as %s", line)
	}
}

func TestSpans(t *testing.T) {
	for d, want := range map[time.Duration]string{
		-time.Hour: "0s", 0: "0s", 59 * time.Second: "59s", time.Minute: "1m", 59*time.Minute + 59*time.Second: "59m",
		time.Hour: "1h", 47 * time.Hour: "47h", 48 * time.Hour: "2d", 1000 * 24 * time.Hour: "1000d",
	} {
		if got := span(d); got != want {
			t.Errorf("span(%s) = %s, want %s", d, got, want)
		}
	}
	for n, want := range map[int64]string{0: "0 bytes", 1023: "1023 bytes", 1536: "1.5 KiB", 5 << 20: "5.0 MiB"} {
		if got := Size(n); got != want {
			t.Errorf("size(%d) = %s, want %s", n, got, want)
		}
	}
}

func (halfList) List(_ context.Context, f admin.Filter) (admin.Page, error) {
	if f.Cursor != "" {
		return admin.Page{}, queue.ErrClosed
	}
	return admin.Page{Entries: make([]admin.Entry, 2), Cursor: "on"}, nil
}

func TestPalette(t *testing.T) {
	if got := (Palette{}).Red("x"); got != "x" {
		t.Errorf("without colour: %q", got)
	}
	if got := (Palette{true}).Red("x"); got != "\x1b[31mx\x1b[0m" {
		t.Errorf("with colour: %q", got)
	}
}

func TestPrettyJSON(t *testing.T) {
	if _, err := PrettyJSON(io.LimitReader(strings.NewReader(`{"a": 1, "b"`), 100)); err == nil {
		t.Error("JSON that is cut short is printed")
	}
}

// staysHarmless: nothing in s makes a terminal do anything but show it.
func staysHarmless(t *testing.T, s string) {
	t.Helper()
	for _, r := range s {
		if r != '\n' && r != '\ufffd' && !unicode.IsPrint(r) {
			t.Errorf("%U reaches the terminal in %q", r, s)
			return
		}
	}
}
