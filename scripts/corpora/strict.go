package main

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/smtp2rest/smtp2rest/relay/payload/mime"
)

// jury is how many of the other four readers must agree. Any three have two
// authors among them: only mailparser and postal-mime share one.
const jury = 3

// score counts, for one reader and one class of mails, those that the others
// read alike in all five fields, and of these those that it reads so too.
type score struct {
	judged, right       int // three of the others agree
	unanimous, rightAll int // all four do
	errors              int
}

// classes of mails. One is malformed if CPython's email package reports a
// defect, a reader errs, or our parser had to repair something.
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
			scores[class][name].judge(all, name)
		}
		if o.diff {
			strictDiff(path, class, all, ours.Error)
		}
	}
	return scores, nil
}

// defective reports whether our parser repaired something. Text behind the
// last part is none: mailing lists put it there.
func defective(p *mime.Part) bool {
	return slices.ContainsFunc(p.Defects, func(d mime.Defect) bool { return d.Kind != mime.Epilogue }) || slices.ContainsFunc(p.Parts, defective)
}

// judge compares one reader with the consensus of the others.
func (s *score) judge(all map[string]map[string]string, name string) {
	if all[name] == nil {
		s.errors++
	}
	judged, unanimous, right := true, true, all[name] != nil
	for _, field := range core {
		v, n := consensus(all, name, field)
		judged = judged && n >= jury
		unanimous = unanimous && n > jury
		right = right && all[name][field] == v
	}
	if judged {
		s.judged++
	}
	if unanimous {
		s.unanimous++
	}
	if judged && right {
		s.right++
	}
	if unanimous && right {
		s.rightAll++
	}
}

// consensus returns what most readers but one say of a field, and how many.
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

func strictDiff(path, class string, all map[string]map[string]string, failure string) {
	whole, differs := true, ""
	for _, field := range core {
		v, n := consensus(all, us, field)
		whole = whole && n >= jury
		if n >= jury && all[us][field] != v {
			differs += " " + field
		}
	}
	if differs == "" {
		return
	}
	fmt.Printf("\n%s: %s, all five judged: %v, differs in%s %s\n", path, class, whole, differs, failure)
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

// around shows a text about where it begins to differ.
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
			t.unanimous, t.rightAll = t.unanimous+s.unanimous, t.rightAll+s.rightAll
		}
	}
}

func printScores(corpus string, scores map[string]map[string]*score) {
	for _, class := range slices.Sorted(maps.Keys(scores)) {
		for _, name := range slices.Sorted(maps.Keys(scores[class])) {
			s := scores[class][name]
			fmt.Printf("%-16s %-12s %-12s errors %3d   three agree %5d/%-5d %5.1f %%   all agree %5d/%-5d %5.1f %%\n",
				corpus, class, name, s.errors, s.right, s.judged, percent(s.right, s.judged), s.rightAll, s.unanimous, percent(s.rightAll, s.unanimous))
		}
	}
}

func percent(n, of int) float64 {
	if of == 0 {
		return 100
	}
	return 100 * float64(n) / float64(of)
}
