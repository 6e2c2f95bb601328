package main

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/smtp2rest/smtp2rest/cmd/smtp2rest/internal/terminal"
	"github.com/smtp2rest/smtp2rest/relay/store"
	"github.com/smtp2rest/smtp2rest/test/harness"
)

// A damaged queue is kept under another name, and the next start has an empty
// one; a running daemon's is left alone.
func TestQueueSetAside(t *testing.T) {
	dir := t.TempDir()
	s, err := store.Open(t.Context(), store.SQLite(dir), store.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if r := harness.Execute(t, harness.Environ(t), "", "queue", "set-aside", "--data-dir", dir); r.Code == 0 || !strings.Contains(r.Err, "another smtp2rest") {
		t.Errorf("while it is in use: %+v", r)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "queue.db"), []byte(strings.Repeat("damaged", 1000)), 0o600); err != nil {
		t.Fatal(err)
	}
	if r := harness.Execute(t, harness.Environ(t), "", "queue", "set-aside", "--data-dir", dir); r.Code != 0 || !strings.Contains(r.Out, ".damaged-") {
		t.Fatalf("%+v", r)
	}
	kept, err := filepath.Glob(filepath.Join(dir, "queue.db"+".damaged-*"))
	if err != nil || len(kept) != 1 {
		t.Errorf("kept %v, %v", kept, err)
	}
	wantOut(t, harness.Execute(t, harness.Environ(t), "", "queue", "set-aside", "--data-dir", dir), 1, "", "smtp2rest queue set-aside: there is no queue in "+dir+"\n")
	nameless := []string{"PATH=" + os.Getenv("PATH"), "HOME=" + dir}
	wantOut(t, harness.Execute(t, nameless, "", "queue", "set-aside"), terminal.ExitUsage, "", "name the queue with --data-dir, --config or SMTP2REST_DATA_DIR")
	// Bodies whose database is gone stand in the way of a start as well.
	if err := os.MkdirAll(filepath.Join(dir, "spool", "x"), 0o700); err != nil {
		t.Fatal(err)
	}
	wantOut(t, harness.Execute(t, append(nameless, "SMTP2REST_DATA_DIR="+dir), "", "queue", "set-aside"), 0, "The queue is ", "")
	if _, err := os.Lstat(filepath.Join(dir, "spool")); !errors.Is(err, fs.ErrNotExist) {
		t.Error("the spool is still there")
	}
	if s, err = store.Open(t.Context(), store.SQLite(dir), store.Options{}); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
}
