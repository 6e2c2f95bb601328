// Command corpora compares how relay/mail and other parsers read the same mails. run.sh
// runs it, by hand; the mails are not part of the repository.
//
//	corpora [-strict] [-diff] [-suite] [-corpus NAME] READ_DIR MAIL_DIR
//
// MAIL_DIR has a directory for each corpus. READ_DIR has a file READER.jsonl for each
// parser; the oracle programs in this directory write them.
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
	"unicode/utf8"

	"github.com/smtp2rest/smtp2rest/relay"
	"github.com/smtp2rest/smtp2rest/relay/mail"
	"github.com/smtp2rest/smtp2rest/relay/mail/mime"
)

const us = "smtp2rest"

// reading is the result of one parser for one mail.
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

// fields brings a reading into a form for comparison: white space becomes one blank, and
// addresses are in lower case.
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

// squeeze makes white space one blank, and removes control characters and the byte order
// mark.
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

// options are the options of the command line.
type options struct {
	only                string
	diff, suite, strict bool
}

func run(readDir, mailDir string, o options) error {
	readers, err := load(readDir)
	if err != nil {
		return err
	}
	if !o.suite {
		delete(readers, "mail") // mikel/mail joins no bodies: it speaks for its own suite only
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
// majority of the other authors, or with the suite's own parser, by field.
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
		want := func(reader string) map[string]string { return wanted(all, reader) }
		if o.suite {
			expected := maps.Clone(all[corpus])
			maps.DeleteFunc(expected, func(_, v string) bool { return illegible(v) })
			want = func(string) map[string]string { return expected }
		}
		t.add(all, want, readers)
		if o.diff {
			printDiff(path, all, want(us))
		}
	}
	t.print(corpus, len(mails))
	return nil
}

// read maps a mail for an account that takes everything.
func read(raw []byte) *reading {
	r := &reading{}
	root := mime.Parse(raw, mime.Limits{})
	from := root.Decoder().Addresses(root.Header.Get("From"), root.Param("charset"))
	for _, a := range from {
		r.From = append(r.From, struct {
			Name  string `json:"name"`
			Email string `json:"email"`
		}{a.Name, a.Email})
	}
	m, err := mail.Map(raw, "", mail.Options{Default: relay.Address{Email: "a@b.example"}, Attachments: mail.SendAttachments})
	var refusal *mail.Refusal
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
		text, _ := p.Text()
		return p.Type == "text/html" && p.Disposition() != "attachment" && strings.TrimSpace(text) != ""
	}
	return slices.ContainsFunc(p.Parts, hasHTML)
}

// tally counts agreement, by reader.
type tally struct {
	of     map[string]*agreement
	failed map[string]int
}

// agreement is how often one reader reads what is expected.
type agreement struct {
	right, judged map[string]int // by field
	all, five     int            // in all core fields
}

func newTally() *tally { return &tally{of: map[string]*agreement{}, failed: map[string]int{}} }

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

// wanted returns the fields in which most of the others agree.
func wanted(all map[string]map[string]string, reader string) map[string]string {
	want := map[string]string{}
	for _, field := range fieldNames {
		if v, ok := majority(all, reader, field); ok {
			want[field] = v
		}
	}
	return want
}

// add counts one mail; want gives what is expected of a reader.
func (t *tally) add(all map[string]map[string]string, want func(reader string) map[string]string, readers map[string]map[string]*reading) {
	for _, reader := range append(slices.Sorted(maps.Keys(readers)), us) {
		s := t.of[reader]
		if s == nil {
			s = &agreement{right: map[string]int{}, judged: map[string]int{}}
			t.of[reader] = s
		}
		got, expected, five := all[reader], want(reader), 0
		whole := got != nil
		for _, field := range fieldNames {
			v, ok := expected[field]
			if !ok {
				continue
			}
			isCore := slices.Contains(core, field)
			if isCore {
				five++
			}
			s.judged[field]++
			if got != nil && got[field] == v {
				s.right[field]++
			} else if isCore {
				whole = false
			}
		}
		if five == len(core) {
			count(whole, &s.five, &s.all)
		}
	}
}

// majority returns the value that at least two of the other authors share and
// fewer do not, unless it is illegible.
func majority(all map[string]map[string]string, but, field string) (string, bool) {
	voters := map[string]map[string]bool{}
	for reader, fields := range all {
		if author(reader) == author(but) {
			continue
		}
		v := fields[field]
		if voters[v] == nil {
			voters[v] = map[string]bool{}
		}
		voters[v][author(reader)] = true
	}
	best, most, tie := "", 1, false
	for v, authors := range voters {
		if n := len(authors); n > most {
			best, most, tie = v, n, false
		} else if n == most && n > 1 {
			tie = true
		}
	}
	return best, most > 1 && !tie && !illegible(best)
}

// author names the author of a reader; mailparser and postal-mime have the same.
func author(reader string) string {
	if reader == "postal-mime" {
		return "mailparser"
	}
	return reader
}

// illegible reports whether a mail could not be read: its text has U+FFFD, an escape or a
// C1 control character.
func illegible(v string) bool {
	return strings.ContainsFunc(v, func(r rune) bool { return r == utf8.RuneError || r == escape || 0x80 <= r && r < 0xA0 })
}

const escape = '\x1b'

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
	fmt.Printf("\n%s: %d mails; all 5: %s\n%-12s %6s %8s", corpus, mails, strings.Join(core, ", "), "reader", "errors", "all 5")
	for _, f := range fieldNames {
		fmt.Printf(" %8s", f)
	}
	fmt.Println()
	for _, reader := range slices.Sorted(maps.Keys(t.of)) {
		if t.failed[reader] == mails {
			continue // has not read this corpus
		}
		s := t.of[reader]
		fmt.Printf("%-12s %6d %8s", reader, t.failed[reader], fmt.Sprintf("%d/%d", s.all, s.five))
		for _, f := range fieldNames {
			fmt.Printf(" %8s", fmt.Sprintf("%d/%d", s.right[f], s.judged[f]))
		}
		fmt.Println()
	}
}
