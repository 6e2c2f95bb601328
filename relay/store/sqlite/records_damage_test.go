package sqlite

import (
	"bytes"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/smtp2rest/smtp2rest/relay/queue"
	"github.com/smtp2rest/smtp2rest/relay/store/internal/db"
)

// root is the first page of a table, from 0.
func root(t *testing.T, path, table string) int64 {
	t.Helper()
	c, err := db.Connect(db.Name(path, ""))
	must(t, err)
	n, err := c.Number("SELECT rootpage FROM sqlite_schema WHERE name = ?", table)
	must(t, errors.Join(err, c.Close()))
	return n - 1
}

// TestDamagedRecordsAreSetAside: the daemon starts, the damaged file is kept as it
// was, and the new one works and is kept at the next start.
func TestDamagedRecordsAreSetAside(t *testing.T) {
	for name, damage := range map[string]func(path string){
		"cut short":              func(path string) { must(t, os.Truncate(path, 10_000)) },
		"cut to almost nothing":  func(path string) { must(t, os.Truncate(path, 50)) },
		"no database":            func(path string) { writeAt(t, path, 0, make([]byte, 4096)) },
		"suppressions damaged":   func(path string) { writeAt(t, path, root(t, path, "suppressions")*4096, make([]byte, 4096)) },
		"found damaged in use":   func(path string) { must(t, os.WriteFile(path+".damaged", nil, 0o600)) },
		"the list of tables bad": func(path string) { writeAt(t, path, 100, bytes.Repeat([]byte{7}, 3996)) },
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			path := filepath.Join(dir, RecordsFile)
			s := openRecords(t, dir, Options{})
			must(t, errors.Join(s.change(t.Context(), insert(event(1))), s.Close()))
			damage(path)
			before, err := os.ReadFile(path)
			must(t, err)
			var log bytes.Buffer
			s = openRecords(t, dir, Options{Log: slog.New(slog.NewTextHandler(&log, nil))})
			must(t, errors.Join(s.change(t.Context(), insert(event(2))), s.Close()))
			kept, err := filepath.Glob(path + ".damaged-*[0-9]")
			must(t, err)
			if len(kept) != 1 || !strings.Contains(log.String(), "level=ERROR") || !strings.Contains(log.String(), kept[0]) {
				t.Fatalf("kept %v, log:\n%s", kept, &log)
			}
			if after, err := os.ReadFile(kept[0]); err != nil || !bytes.Equal(before, after) {
				t.Errorf("what is kept is not what was there: %v", err)
			}
			openRecords(t, dir, Options{})
			if count(t, dir) != 1 {
				t.Errorf("%d events in the new file", count(t, dir))
			}
		})
	}
}

// TestRecordsFoundDamagedInUse: calls fail, the log says so once, and the next start
// begins anew.
func TestRecordsFoundDamagedInUse(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, RecordsFile)
	s := openRecords(t, dir, Options{})
	must(t, errors.Join(s.change(t.Context(), insert(event(1))), s.Close()))
	writeAt(t, path, root(t, path, "events_bad")*4096, make([]byte, 4096))
	var log bytes.Buffer
	s = openRecords(t, dir, Options{Log: slog.New(slog.NewTextHandler(&log, nil))})
	for range 3 {
		if _, _, err := s.BadNews(t.Context(), time.Time{}); err == nil || !strings.Contains(err.Error(), "damaged") {
			t.Errorf("a damaged index was read: %v", err)
		}
		if err := s.change(t.Context(), insert(event(2))); err == nil {
			t.Error("a damaged index was written to")
		}
	}
	if n := strings.Count(log.String(), "next start"); n != 1 {
		t.Errorf("said %d times:\n%s", n, &log)
	}
	must(t, s.Close())
	s = openRecords(t, dir, Options{})
	must(t, s.change(t.Context(), insert(event(3))))
	if count(t, dir) != 1 {
		t.Errorf("%d events", count(t, dir))
	}
}

func TestNewerRecordsAreRefused(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, RecordsFile)
	must(t, openRecords(t, dir, Options{}).Close())
	writeAt(t, path, 60, []byte{0, 0, 0, 99})
	before, err := os.ReadFile(path)
	must(t, err)
	if _, err := OpenRecords(Options{Dir: dir, Log: quiet()}); !errors.Is(err, queue.ErrNewer) {
		t.Fatalf("Open: %v", err)
	}
	if after, err := os.ReadFile(path); err != nil || !bytes.Equal(before, after) {
		t.Errorf("the file was changed: %v", err)
	}
}

func TestRecordsOfAnotherProgram(t *testing.T) {
	dir := t.TempDir()
	c, err := db.Connect(db.Name(filepath.Join(dir, RecordsFile), ""), "PRAGMA application_id=7", "CREATE TABLE t(x)")
	must(t, err)
	must(t, c.Close())
	if _, err := OpenRecords(Options{Dir: dir, Log: quiet()}); err == nil || !strings.Contains(err.Error(), "another program") {
		t.Fatalf("Open: %v", err)
	}
}
