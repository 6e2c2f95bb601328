// Command corpora compares what relay/payload makes of mails with what other
// parsers read in them. It is run by hand, by run.sh, and knows no mail itself.
//
//	corpora [-strict] [-diff] [-suite] [-corpus NAME] READ_DIR MAIL_DIR
//
// MAIL_DIR has a directory per corpus; READ_DIR a file READER.jsonl per
// parser, as the oracle programs beside this one write them.
package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"unicode"

	"github.com/smtp2rest/smtp2rest/relay"
	"github.com/smtp2rest/smtp2rest/relay/payload"
	"github.com/smtp2rest/smtp2rest/relay/payload/mime"
)

const us = "smtp2rest"

// reading is what one parser read in one mail.
type reading struct {
	File    string `json:"file"`
	Error   string `json:"error"`
	Subject string `json:"subject"`
	From    []struct {
		Name  string `json:"name"`
		Email string `json:"email"`
	} `json:"from"`
	Text        string `json:"text"`
	HTML        string `json:"html"`
	Attachments []struct {
		Name string `json:"name"`
		Type string `json:"type"`
	} `json:"attachments"`
	Defects []string `json:"defects"` // what it says is malformed
	Refused string   `json:"-"`       // ours only: why the mail would not be sent; what it holds was read all the same
}

var fieldNames = []string{"subject", "from", "name", "text", "html", "files", "names"}

// core are the fields that count for "right in all five".
var core = []string{"subject", "from", "text", "html", "files"}

// fields brings a reading into a form that can be compared: white space is
// one blank, addresses are in lower case.
func (r *reading) fields() map[string]string {
	f := map[string]string{"subject": squeeze(r.Subject), "text": squeeze(r.Text), "html": squeeze(r.HTML), "from": "", "name": ""}
	if len(r.From) > 0 {
		f["from"], f["name"] = strings.ToLower(r.From[0].Email), squeeze(r.From[0].Name)
	}
	f["files"] = fmt.Sprint(len(r.Attachments))
	var names []string
	for _, a := range r.Attachments {
		names = append(names, squeeze(a.Name)+"|"+strings.ToLower(a.Type))
	}
	slices.Sort(names)
	f["names"] = strings.Join(names, " ")
	return f
}

// squeeze makes white space one blank, and leaves out what nobody sees and no
// payload may hold: control characters and the byte order mark.
func squeeze(s string) string {
	s = strings.Map(func(r rune) rune {
		if r < ' ' && !unicode.IsSpace(r) && r != escape || r == 0x7F || r == '\uFEFF' {
			return -1
		}
		return r
	}, s)
	return strings.Join(strings.Fields(s), " ")
}

func main() {
	diff := flag.Bool("diff", false, "print every difference from the majority")
	suite := flag.Bool("suite", false, "compare with the suite's own parser, not with the majority")
	strict := flag.Bool("strict", false, "count only where three of the other four readers agree; by well-formed and malformed")
	only := flag.String("corpus", "", "only this corpus")
	flag.Parse()
	if flag.NArg() != 2 {
		fmt.Fprintln(os.Stderr, "usage: corpora [-strict] [-diff] [-suite] [-corpus NAME] READ_DIR MAIL_DIR")
		os.Exit(2)
	}
	if err := run(flag.Arg(0), flag.Arg(1), options{*only, *diff, *suite, *strict}); err != nil {
		fmt.Fprintln(os.Stderr, "corpora:", err)
		os.Exit(1)
	}
}

// options are the command line's.
type options struct {
	only                string
	diff, suite, strict bool
}

func run(readDir, mailDir string, o options) error {
	readers, err := load(readDir)
	if err != nil {
		return err
	}
	corpora, err := filepath.Glob(filepath.Join(mailDir, "*"))
	if err != nil {
		return err
	}
	if o.strict {
		return strictly(corpora, readers, o)
	}
	for _, dir := range corpora {
		if o.only != "" && filepath.Base(dir) != o.only {
			continue
		}
		if o.suite && readers[filepath.Base(dir)] == nil {
			continue // its parser is not among the readers
		}
		if err := compare(dir, readers, o); err != nil {
			return err
		}
	}
	return nil
}

// load returns reader → file → reading.
func load(dir string) (map[string]map[string]*reading, error) {
	files, err := filepath.Glob(filepath.Join(dir, "*.jsonl"))
	if err != nil || len(files) == 0 {
		return nil, fmt.Errorf("no readings in %s", dir)
	}
	readers := map[string]map[string]*reading{}
	for _, path := range files {
		f, err := os.Open(path)
		if err != nil {
			return nil, err
		}
		defer f.Close()
		list := map[string]*reading{}
		lines := bufio.NewScanner(f)
		lines.Buffer(nil, 256<<20)
		for lines.Scan() {
			r := &reading{}
			if err := json.Unmarshal(lines.Bytes(), r); err != nil {
				return nil, fmt.Errorf("%s: %w", path, err)
			}
			list[filepath.Join(filepath.Base(filepath.Dir(r.File)), filepath.Base(r.File))] = r
		}
		if err := lines.Err(); err != nil {
			return nil, err
		}
		readers[strings.TrimSuffix(filepath.Base(path), ".jsonl")] = list
	}
	return readers, nil
}

// compare prints, for one corpus, how often each reader agrees with the
// majority of the others, field by field, and with the suite's own parser.
func compare(dir string, readers map[string]map[string]*reading, o options) error {
	mails, err := filepath.Glob(filepath.Join(dir, "*.eml"))
	if err != nil {
		return err
	}
	corpus := filepath.Base(dir)
	t := newTally()
	for _, path := range mails {
		raw, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		all := map[string]map[string]string{}
		if ours := read(raw); ours.Error == "" {
			all[us] = ours.fields()
		} else {
			t.failed[us]++
		}
		for name, list := range readers {
			if r := list[filepath.Join(corpus, filepath.Base(path))]; r != nil && r.Error == "" {
				all[name] = r.fields()
			} else {
				t.failed[name]++
			}
		}
		if all[us] != nil && lost(all) {
			fmt.Println("LOST:", path)
		}
		want := wanted(all)
		if o.suite {
			want = all[corpus]
		}
		t.add(all, want, readers)
		if o.diff {
			printDiff(path, all, want)
		}
	}
	t.print(corpus, len(mails))
	return nil
}

// read maps a mail as an account that takes everything.
func read(raw []byte) *reading {
	r := &reading{}
	root := mime.Parse(raw, mime.Limits{})
	from := mime.ParseAddresses(root.Header.Get("From"), root.Param("charset"))
	for _, a := range from {
		r.From = append(r.From, struct {
			Name  string `json:"name"`
			Email string `json:"email"`
		}{a.Name, a.Email})
	}
	m, err := payload.Map(raw, "", payload.Options{Default: relay.Address{Email: "a@b.example"}, Attachments: payload.SendAttachments})
	var refusal *payload.Refusal
	if errors.As(err, &refusal) && refusal.Read != nil {
		m, r.Refused = refusal.Read, refusal.Reason.String()
	} else if err != nil {
		r.Error = err.Error()
		return r
	}
	r.Subject, r.Text = m.Subject, m.Text
	if m.HTML != "<div></div>" && (hasHTML(root) || m.Text == "") { // else made by us
		r.HTML = m.HTML
	}
	for _, a := range m.Attachments {
		r.Attachments = append(r.Attachments, struct {
			Name string `json:"name"`
			Type string `json:"type"`
		}{a.Filename, a.ContentType})
	}
	return r
}

// hasHTML reports whether the mail has html of its own, with something in it.
func hasHTML(p *mime.Part) bool {
	if strings.HasPrefix(p.Type, "message/") {
		return false
	}
	if len(p.Parts) == 0 {
		return p.Type == "text/html" && p.Disposition() != "attachment" && strings.TrimSpace(p.Text()) != ""
	}
	return slices.ContainsFunc(p.Parts, hasHTML)
}

// tally counts agreement.
type tally struct {
	right  map[string]map[string]int // reader → field → mails
	judged map[string]int            // field → mails with a majority
	all    map[string]int            // reader → mails right in all core fields
	five   int                       // mails with a majority in all core fields
	failed map[string]int
}

func newTally() *tally {
	return &tally{right: map[string]map[string]int{}, judged: map[string]int{}, all: map[string]int{}, failed: map[string]int{}}
}

// lost reports whether two others read something where we read nothing.
func lost(all map[string]map[string]string) bool {
	read := 0
	for reader, f := range all {
		if f["text"]+f["html"] == "" && f["files"] == "0" {
			continue
		}
		if reader == us {
			return false
		}
		read++
	}
	return read > 1
}

// wanted returns the fields in which most of the other readers agree.
func wanted(all map[string]map[string]string) map[string]string {
	want := map[string]string{}
	for _, field := range fieldNames {
		if v, ok := majority(all, field); ok {
			want[field] = v
		}
	}
	return want
}

func (t *tally) add(all map[string]map[string]string, want map[string]string, readers map[string]map[string]*reading) {
	for field := range want {
		t.judged[field]++
	}
	if !slices.ContainsFunc(core, func(f string) bool { _, ok := want[f]; return !ok }) {
		t.five++
	}
	names := slices.Sorted(maps.Keys(readers))
	for _, reader := range append(names, us) {
		got := all[reader]
		if t.right[reader] == nil {
			t.right[reader] = map[string]int{}
		}
		five := got != nil
		for _, field := range fieldNames {
			v, ok := want[field]
			if got != nil && ok && got[field] == v {
				t.right[reader][field]++
			} else if slices.Contains(core, field) {
				five = false
			}
		}
		if five {
			t.all[reader]++
		}
	}
}

// majority returns the value that most of the other readers share, at least two.
func majority(all map[string]map[string]string, field string) (string, bool) {
	votes := map[string]int{}
	for reader, fields := range all {
		if reader != us {
			votes[fields[field]]++
		}
	}
	best, most, tie := "", 1, false
	for v, n := range votes {
		if n > most {
			best, most, tie = v, n, false
		} else if n == most && n > 1 {
			tie = true
		}
	}
	return best, most > 1 && !tie
}

func printDiff(path string, all map[string]map[string]string, want map[string]string) {
	for _, field := range fieldNames {
		if v, ok := want[field]; !ok || all[us][field] == v {
			continue
		}
		fmt.Printf("\n%s: %s\n", path, field)
		for _, reader := range slices.Sorted(maps.Keys(all)) {
			v := all[reader][field]
			if len(v) > 300 {
				v = v[:200] + " … " + v[len(v)-80:]
			}
			fmt.Printf("  %-12s %q\n", reader, v)
		}
	}
}

func (t *tally) print(corpus string, mails int) {
	fmt.Printf("\n%s: %d mails; to compare in all of %s: %d\n", corpus, mails, strings.Join(core, ", "), t.five)
	fmt.Printf("%-12s %6s %6s", "reader", "errors", "all 5")
	for _, f := range fieldNames {
		fmt.Printf(" %12s", f)
	}
	fmt.Println()
	for _, reader := range slices.Sorted(maps.Keys(t.right)) {
		fmt.Printf("%-12s %6d %6d", reader, t.failed[reader], t.all[reader])
		for _, f := range fieldNames {
			fmt.Printf(" %12s", fmt.Sprintf("%d/%d", t.right[reader][f], t.judged[f]))
		}
		fmt.Println()
	}
}
