package sendmail

import (
	"bytes"
	"errors"
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

var update = flag.Bool("update", false, "write the golden files")

func here() Local {
	return Local{
		User: "root", FullName: "Röt & Co.", Domain: "web1.example.com", ID: "id1",
		Now: time.Date(2026, 12, 1, 8, 30, 5, 0, time.FixedZone("", 3600)),
	}
}

// TestCompose plays the mails in testdata: each is a command line, the mail as
// it was read, and, after a line of =, what is to be sent. ¶ is a CR and \n an
// LF of the file.
func TestCompose(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) < 10 {
		t.Fatalf("%d mails, %v", len(files), err)
	}
	for _, name := range files {
		t.Run(filepath.Base(name), func(t *testing.T) {
			text, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			given, want, _ := strings.Cut(string(text), "\n=====\n")
			line, raw, _ := strings.Cut(given, "\n")
			got := played(t, line, raw)
			if *update {
				if err := os.WriteFile(name, []byte(given+"\n=====\n"+got), 0o644); err != nil {
					t.Fatal(err)
				}
			} else if got != want {
				t.Errorf("got\n%s\nwant\n%s", got, want)
			}
		})
	}
}

func played(t *testing.T, line, raw string) string {
	c, err := Parse(wordsOf(line))
	if err != nil {
		t.Fatal(err)
	}
	m, err := Compose(c, []byte(strings.ReplaceAll(raw, "¶", "\r")), here())
	var failed *Error
	if errors.As(err, &failed) {
		return "exit " + string(rune('0'+failed.Code/10)) + string(rune('0'+failed.Code%10)) + ": " + failed.Text + "\n"
	}
	if rest := bytes.ReplaceAll(m.Data, []byte("\r\n"), nil); bytes.ContainsAny(rest, "\r\n") {
		t.Error("a line end is not CRLF")
	}
	return "from <" + m.From + "> to <" + strings.Join(m.Recipients, "> <") + ">\n" + strings.ReplaceAll(string(m.Data), "\r\n", "\n")
}

func TestNames(t *testing.T) {
	for name, want := range map[string]string{
		"":                     "root@web1",
		"Cron Daemon":          `"Cron Daemon" <root@web1>`,
		`a "b" \c`:             `"a \"b\" \\c" <root@web1>`,
		"Zoë":                  "=?utf-8?q?Zo=C3=AB?= <root@web1>",
		"x\r\nBcc: eve@x":      `"x Bcc: eve@x" <root@web1>`,
		"x\" <eve@x>, \"y":     `"x\" <eve@x>, \"y" <root@web1>`,
		"\xff\x00":             `"?" <root@web1>`,
		strings.Repeat(" ", 9): "root@web1",
	} {
		if got := mailbox(name, "root@web1"); got != want {
			t.Errorf("%q: %s, want %s", name, got, want)
		}
	}
}

// Time is linear in what is read, whatever it is.
func TestComposeIsLinear(t *testing.T) {
	const n = 1 << 20
	for _, raw := range []string{strings.Repeat("\r", n), "To: a@b\n" + strings.Repeat(" x\n", n/3), "\n" + strings.Repeat("\r", n) + "x", "To: " + strings.Repeat("(", n), strings.Repeat("a:\n", n/3)} {
		start := time.Now()
		_, _ = Compose(Command{FromHeader: true, Recipients: []string{"root"}}, []byte(raw), here())
		if took := time.Since(start); took > time.Minute {
			t.Errorf("%.10q... took %s", raw, took)
		}
	}
}

// FuzzCompose: a mail gets the three fields at most, has no Bcc, has every line end
// right, and nothing is left to do to what was composed.
func FuzzCompose(f *testing.F) {
	for _, s := range []string{"To: a@b\n\nx\n.\ny", "Subject: a\rBcc: b@c\r\n\r\nx", "x", "", "To: a@b\n c@d\n \nBcc: e@f\n\n", "From a b\nTo: x@y\n", "Bcc: a\nResent-To: b\nResent-Bcc: c\n\n\r\r\n"} {
		f.Add(s, "name")
	}
	f.Fuzz(func(t *testing.T, raw, name string) {
		c := Command{Mode: Deliver, FullName: name, Recipients: []string{"root"}, IgnoreDots: true}
		m, err := Compose(c, []byte(raw), here())
		if err != nil {
			t.Fatalf("without -t nothing is wrong with a mail: %v", err)
		}
		if rest := bytes.ReplaceAll(m.Data, []byte("\r\n"), nil); bytes.ContainsAny(rest, "\r\n") {
			t.Fatalf("%q: a line end is not CRLF: %q", raw, m.Data)
		}
		before, _ := split([]byte(raw))
		after, _ := split(m.Data)
		if len(after) < 3 || len(after) > len(before)+3 {
			t.Fatalf("%q: %d fields became %d: %q", raw, len(before), len(after), m.Data)
		}
		for _, x := range after {
			if x.name == "bcc" || x.name == "resent-bcc" {
				t.Fatalf("%q: a Bcc is left: %q", raw, m.Data)
			}
		}
		again, err := Compose(c, m.Data, here())
		if err != nil || !bytes.Equal(again.Data, m.Data) {
			t.Fatalf("%q: composed again it is another: %q, %q", raw, m.Data, again.Data)
		}
	})
}
