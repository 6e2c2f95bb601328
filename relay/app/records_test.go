package app

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/smtp2rest/smtp2rest/relay/history"
)

// Records that cannot be written harm no mail, so that nothing but the status
// tells of it; a file that is found damaged while it is used stays told until
// the restart that sets it aside.
func TestStatusOfDamagedRecords(t *testing.T) {
	dir := t.TempDir()
	box := newSandbox(t)
	first, _ := start(t, load(t, box.URL(), inDir(dir, "")))
	if err := stop(first, patience); err != nil {
		t.Fatal(err)
	}
	// Pages 15 to 18 have the history's recipients. A start reads the suppressions.
	file, err := os.OpenFile(filepath.Join(dir, "records.db"), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	const page = 4096
	if _, err := file.WriteAt(make([]byte, 4*page), 14*page); err != nil {
		t.Fatal(err)
	}
	if err := file.Close(); err != nil {
		t.Fatal(err)
	}
	a, _ := start(t, load(t, box.URL(), inDir(dir, "")))
	// The start brings the history in line with the queue, and may find it by then.
	if got := handOver(t, a, "bob@example.net"); !strings.HasPrefix(got, "250 ") {
		t.Errorf("the mail is answered %q", got)
	}
	_, _ = operator(t, dir).Find(t.Context(), history.Query{}) // writes what waits; its error is what the warning tells
	got := warnings(t, dir)
	if !strings.Contains(got, "are not kept any more: ") || !strings.Contains(got, "is damaged") || !strings.Contains(got, "restart smtp2rest") {
		t.Errorf("the warnings are %q", got)
	}
	_ = stop(a, patience) // what is left to be written cannot be
	start(t, load(t, box.URL(), inDir(dir, "")))
	if got := warnings(t, dir); got != "" {
		t.Errorf("after the restart: %s", got)
	}
}
