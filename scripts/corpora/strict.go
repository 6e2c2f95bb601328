package main

import (
	"bytes"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/smtp2rest/smtp2rest/relay/mail/mime"
)

// jury is how many of the other four readers must agree. Three readers have at least two
// authors, because only mailparser and postal-mime share one.
const jury = 3

// score counts, for one reader and one class of mails, the mails whose five fields the
// others read in the same way, and how many of these the reader reads like them.
type score struct {
	judged, right       int // three of the others agree
	legible, rightRead  int // and what they agree on is a reading of the mail
	unanimous, rightAll int // all four agree, on a reading
	errors              int

	refused, refusedLegible, refusedRight int // of the above, ours that the policy refuses: they were read, too
}

// classes of mails. A mail is malformed if CPython's email package reports a defect, a
// reader fails, or our parser had to repair something.
const (
	wellFormed = "well-formed"
	malformed  = "malformed"
)

// strictly prints each reader's agreement with the consensus of the others.
func strictly(corpora []string, readers map[string]map[string]*reading, o options) error {
	total := map[string]map[string]*score{}
	for _, dir := range corpora {
		corpus := filepath.Base(dir)
		if o.only != "" && corpus != o.only {
			continue
		}
		scores, err := strictCorpus(dir, readers, o)
		if err != nil {
			return err
		}
		printScores(corpus, scores)
		addScores(total, scores)
	}
	printScores("all", total)
	return nil
}

func strictCorpus(dir string, readers map[string]map[string]*reading, o options) (map[string]map[string]*score, error) {
	mails, err := filepath.Glob(filepath.Join(dir, "*.eml"))
	if err != nil {
		return nil, err
	}
	scores := map[string]map[string]*score{}
	for _, path := range mails {
		raw, err := os.ReadFile(path)
		if err != nil {
			return nil, err
		}
		start := time.Now()
		ours := read(raw)
		if d := time.Since(start); d > time.Second {
			fmt.Println("SLOW:", path, d)
		}
		all, class := map[string]map[string]string{}, wellFormed
		if ours.Error == "" {
			all[us] = ours.fields()
		}
		for name, list := range readers {
			r := list[filepath.Join(filepath.Base(dir), filepath.Base(path))]
			if r == nil || r.Error != "" {
				class = malformed
				continue
			}
			all[name] = r.fields()
			if len(r.Defects) > 0 {
				class = malformed
			}
		}
		if defective(mime.Parse(raw, mime.Limits{})) {
			class = malformed
		}
		if ours.Error == "" && lost(all) {
			fmt.Println("LOST:", path)
		}
		if scores[class] == nil {
			scores[class] = map[string]*score{}
		}
		for _, name := range append(slices.Sorted(maps.Keys(readers)), us) {
			if scores[class][name] == nil {
				scores[class][name] = &score{}
			}
			scores[class][name].judge(all, name, raw, name == us && ours.Refused != "")
		}
		if o.diff {
			strictDiff(path, class, raw, all, ours.Error)
		}
	}
	return scores, nil
}

// defective reports whether our parser repaired something. Text after the last part does
// not count, because mailing lists put it there.
func defective(p *mime.Part) bool {
	return slices.ContainsFunc(p.Defects, func(d mime.Defect) bool { return d.Kind != mime.Epilogue }) || slices.ContainsFunc(p.Parts, defective)
}

// judge compares one reader with the consensus of the others.
func (s *score) judge(all map[string]map[string]string, name string, raw []byte, refused bool) {
	if all[name] == nil {
		s.errors++
	}
	if refused {
		s.refused++
	}
	want, least, right := map[string]string{}, len(all), all[name] != nil
	for _, field := range core {
		v, n := consensus(all, name, field)
		want[field], least = v, min(least, n)
		right = right && all[name][field] == v
	}
	if least < jury {
		return
	}
	count(right, &s.judged, &s.right)
	if unread(want, raw) {
		return
	}
	count(right, &s.legible, &s.rightRead)
	if refused {
		count(right, &s.refusedLegible, &s.refusedRight)
	}
	if least > jury {
		count(right, &s.unanimous, &s.rightAll)
	}
}

func count(right bool, of, n *int) {
	*of++
	if right {
		*n++
	}
}

// unread reports whether the others agree only that the mail could not be read: a field
// is illegible, or a mail with a body has neither text nor html nor files.
func unread(want map[string]string, raw []byte) bool {
	for _, v := range want {
		if illegible(v) {
			return true
		}
	}
	return want["text"]+want["html"] == "" && want["files"] == "0" && hasBody(raw)
}

// hasBody reports whether anything follows the first empty line; that line may have
// blanks.
func hasBody(raw []byte) bool {
	raw = bytes.ReplaceAll(raw, []byte("\r\n"), []byte("\n"))
	raw = bytes.ReplaceAll(raw, []byte("\r"), []byte("\n"))
	for line := range bytes.Lines(raw) {
		if raw = raw[len(line):]; len(bytes.TrimSpace(line)) == 0 {
			return len(bytes.TrimSpace(raw)) > 0
		}
	}
	return false
}

// consensus returns what most of the other readers say about a field, and how many.
func consensus(all map[string]map[string]string, but, field string) (string, int) {
	votes := map[string]int{}
	best := ""
	for name, fields := range all {
		if name == but {
			continue
		}
		v := fields[field]
		if votes[v]++; votes[v] > votes[best] {
			best = v
		}
	}
	return best, votes[best]
}

func strictDiff(path, class string, raw []byte, all map[string]map[string]string, failure string) {
	whole, differs, want := true, "", map[string]string{}
	for _, field := range core {
		v, n := consensus(all, us, field)
		want[field] = v
		whole = whole && n >= jury
		if n >= jury && all[us][field] != v {
			differs += " " + field
		}
	}
	if differs == "" {
		return
	}
	fmt.Printf("\n%s: %s, all five judged: %v, unread: %v, differs in%s %s\n", path, class, whole, unread(want, raw), differs, failure)
	if failure != "" {
		return
	}
	for _, field := range strings.Fields(differs) {
		theirs, n := consensus(all, us, field)
		at := 0
		for ours := all[us][field]; at < min(len(theirs), len(ours)) && theirs[at] == ours[at]; {
			at++
		}
		fmt.Printf("  %-8s %d others %q\n  %8s %-8s %q\n", field, n, around(theirs, at), "", "we", around(all[us][field], at))
	}
}

// around shows the part of a text where it begins to differ.
func around(s string, at int) string {
	from, to := max(at-60, 0), min(at+140, len(s))
	shown := s[from:to]
	if from > 0 {
		shown = "… " + shown
	}
	if to < len(s) {
		shown += " …" + fmt.Sprint(len(s))
	}
	return shown
}

func addScores(total, scores map[string]map[string]*score) {
	for class, list := range scores {
		for name, s := range list {
			if total[class] == nil {
				total[class] = map[string]*score{}
			}
			t := total[class][name]
			if t == nil {
				t = &score{}
				total[class][name] = t
			}
			t.judged, t.right, t.errors = t.judged+s.judged, t.right+s.right, t.errors+s.errors
			t.legible, t.rightRead = t.legible+s.legible, t.rightRead+s.rightRead
			t.unanimous, t.rightAll = t.unanimous+s.unanimous, t.rightAll+s.rightAll
			t.refused += s.refused
			t.refusedLegible, t.refusedRight = t.refusedLegible+s.refusedLegible, t.refusedRight+s.refusedRight
		}
	}
}

func printScores(corpus string, scores map[string]map[string]*score) {
	for _, class := range slices.Sorted(maps.Keys(scores)) {
		for _, name := range slices.Sorted(maps.Keys(scores[class])) {
			s := scores[class][name]
			fmt.Printf("%-20s %-12s %-12s errors %3d  three agree %s  on a reading %s  all agree %s\n",
				corpus, class, name, s.errors, percent(s.right, s.judged), percent(s.rightRead, s.legible), percent(s.rightAll, s.unanimous))
			if s.refused > 0 {
				fmt.Printf("%34s of these refused as encrypted: %d, on a reading %d, and %d read as the others; counted as not read: %s\n",
					"", s.refused, s.refusedLegible, s.refusedRight, percent(s.rightRead-s.refusedRight, s.legible))
			}
		}
	}
}

func percent(n, of int) string {
	if of == 0 {
		return fmt.Sprintf("%4d/%-4d %5s  ", n, of, "")
	}
	return fmt.Sprintf("%4d/%-4d %5.1f %%", n, of, 100*float64(n)/float64(of))
}
