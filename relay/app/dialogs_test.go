package app

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/smtp2rest/smtp2rest/relay"
	"github.com/smtp2rest/smtp2rest/relay/config"
)

// TestDialogs plays the files in testdata/dialogs, each a whole session with a
// daemon of its own and a sandbox of the API behind it:
//
//	line: words          of docs/replies.md that the session is about
//	T: text              of the configuration
//	L: text              of the configuration's listener
//	suppressed WHO WHY   from here on
//	C: text              the client sends the text and CRLF
//	C: (connect)         the client goes on in a second connection
//	(stop)               the daemon begins to stop
//	S: text              the server's next reply is the text, its last line if it has more; … stands for anything
//	S: (close)           the server closes
func TestDialogs(t *testing.T) {
	for _, file := range dialogs(t, "testdata/dialogs") {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			t.Parallel()
			playDialog(t, dialogLines(t, file))
		})
	}
}

func dialogs(t *testing.T, dir string) []string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "*.txt"))
	if err != nil || len(files) < 10 {
		t.Fatalf("%d dialogs in %s, %v", len(files), dir, err)
	}
	return files
}

// dialogLines are its lines, each with the word that says what it is.
func dialogLines(t *testing.T, file string) (lines [][2]string) {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		kind, rest, _ := strings.Cut(strings.TrimSuffix(line, "\n"), " ")
		lines = append(lines, [2]string{kind, rest})
	}
	return lines
}

func playDialog(t *testing.T, lines [][2]string) {
	listener, more := "", ""
	for _, l := range lines {
		switch l[0] {
		case "L:":
			listener += l[1] + "\n"
		case "T:":
			more += l[1] + "\n"
		}
	}
	dir := fmt.Sprintf("[queue]\ndata_dir = %q\n", t.TempDir())
	if more = strings.Replace(more, "[queue]\n", dir, 1); !strings.Contains(more, dir) {
		more += dir
	}
	conf := load(t, newSandbox(t).URL(), "[[listener]]\naddress = \"127.0.0.1:0\"\n"+listener+"[api]\ntimeout = \"300ms\"\n"+more)
	conf.Webhook.Address, conf.Webhook.Secret = "127.0.0.1:0", config.NewSecret("whsec_test")
	a, _ := start(t, conf)
	address := a.Addrs()[0].String()
	c := dial(t, address)
	for i, l := range lines {
		if err := c.step(l[0], l[1]); err != nil {
			t.Fatalf("line %d: %s %s\n%v", i+1, l[0], l[1], err)
		}
		switch {
		case l[0] == "suppressed":
			who, why, _ := strings.Cut(l[1], " ")
			kind := map[string]string{"hard_bounce": relay.EventHardBounce, "complaint": relay.EventComplaint}[why]
			if got := postEvent(t, a, "whsec_test", kind, who); got != 200 {
				t.Fatalf("line %d: the event is answered %d", i+1, got)
			}
		case l == [2]string{"C:", "(connect)"}:
			c = dial(t, address)
		case l[0] == "(stop)":
			stopped := make(chan struct{})
			go func() { defer close(stopped); _ = stop(a, patience) }()
			t.Cleanup(func() { <-stopped })
		}
	}
}

// step does what one line has a client do.
func (c *client) step(kind, text string) error {
	switch kind {
	case "C:":
		if text == "(connect)" {
			return nil
		}
		_, err := c.conn.Write([]byte(strings.ReplaceAll(text, `\r\n`, "\r\n") + "\r\n"))
		return err
	case "S:":
		got := ""
		for got == "" || len(got) > 3 && got[3] == '-' {
			line, err := c.r.ReadString('\n')
			if got = strings.TrimSuffix(line, "\r\n"); err != nil {
				got = "(close)"
			}
		}
		pattern := "^" + strings.ReplaceAll(regexp.QuoteMeta(text), "…", ".*") + "$"
		if !regexp.MustCompile(pattern).MatchString(got) {
			return fmt.Errorf("got %s", got)
		}
	case "", "#", "line:", "L:", "T:", "suppressed", "(stop)":
	default:
		return fmt.Errorf("not a line of a dialog")
	}
	return nil
}

// withoutDialog are lines of the table that no client can bring about, or that
// are shown elsewhere, each with the reason.
func withoutDialog() map[string]string {
	return map[string]string{
		"unparsable beyond repair":                                                                  "the mapping reads whatever comes; relay/intake's tests have the reply",
		"a message that is made to take many times its size to process":                             "it takes hundreds of kilobytes; relay/intake's tests of replies have it",
		"the database of `store.url` cannot be reached, and the API does not take the mail at once": "it takes a server; cmd/smtp2rest's test with PostgreSQL has it",
		"memory budget spent": "it takes more memory than a dialog has; smtpd's tests of the budget do",
	}
}

// Every line of the table has a dialog in which a client is given each reply
// that it names, and every dialog is about a line that there is.
func TestEveryLineHasADialog(t *testing.T) {
	table := replyTable(t)
	heard := map[string][]string{} // the server's lines in the dialogs of each line of the table
	for _, dir := range []string{"testdata/dialogs", "../../smtpd/testdata"} {
		for _, file := range dialogs(t, dir) {
			var about, said []string
			for _, l := range dialogLines(t, file) {
				switch l[0] {
				case "line:":
					about = append(about, l[1])
				case "S:":
					said = append(said, l[1])
				}
			}
			if len(about) == 0 && dir == "testdata/dialogs" {
				t.Errorf("%s is about no line of docs/replies.md", file)
			}
			for _, line := range about {
				if table[line] == nil {
					t.Errorf("%s is about %q, which is no line of docs/replies.md", file, line)
				}
				heard[line] = append(heard[line], said...)
			}
		}
	}
	reasons := withoutDialog()
	for line, replies := range table {
		reason := reasons[line]
		switch delete(reasons, line); {
		case reason == "" && heard[line] == nil:
			t.Errorf("%q has no dialog", line)
		case reason != "" && heard[line] != nil:
			t.Errorf("%q has a dialog, though it is said that it cannot: %s", line, reason)
		case reason != "":
			continue
		}
		for _, r := range replies {
			if !slices.ContainsFunc(heard[line], func(s string) bool { return strings.HasPrefix(s, r) }) {
				t.Errorf("%q: no dialog has %s", line, r)
			}
		}
	}
	for line := range reasons {
		t.Errorf("%q is no line of docs/replies.md", line)
	}
}

// replyTable is the situations of docs/replies.md, each with its replies as far
// as their codes go.
func replyTable(t *testing.T) map[string][]string {
	t.Helper()
	text, err := os.ReadFile("../../docs/replies.md")
	if err != nil {
		t.Fatal(err)
	}
	code := regexp.MustCompile("`([245][0-9]{2} [245]\\.[0-9]+\\.[0-9]+)")
	table := map[string][]string{}
	for line := range strings.Lines(string(text)) {
		cells := strings.Split(line, " | ")
		if len(cells) != 3 || !strings.HasPrefix(line, "| ") {
			continue
		}
		codes := code.FindAllStringSubmatch(cells[1], -1)
		if codes == nil {
			continue // the table's head
		}
		words := strings.TrimPrefix(cells[0], "| ")
		table[words] = []string{}
		for _, c := range codes {
			table[words] = append(table[words], c[1])
		}
	}
	if len(table) < 25 {
		t.Fatalf("docs/replies.md has %d lines", len(table))
	}
	return table
}
