//go:build unix

package main

import (
	"crypto/sha256"
	"encoding/hex"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/smtp2rest/smtp2rest/cmd/smtp2rest/internal/terminal"
	"github.com/smtp2rest/smtp2rest/relay/store"
	"github.com/smtp2rest/smtp2rest/test/harness"
)

// nobody is a user that is not the one who runs the tests.
const nobody = 65534

// contents are the files below a directory, with owner and checksum.
func contents(t *testing.T, dir string) map[string]string {
	t.Helper()
	all := map[string]string{}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		raw, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		info, err := d.Info()
		sum := sha256.Sum256(raw)
		all[path] = hex.EncodeToString(sum[:4])
		if st, ok := info.Sys().(*syscall.Stat_t); ok && st.Uid == nobody {
			all[path] += " of nobody"
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// giveAway makes a directory another user's, where the tests may.
func giveAway(t *testing.T, dir string) {
	t.Helper()
	if os.Geteuid() != 0 {
		return
	}
	err := filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		return os.Chown(path, nobody, nobody)
	})
	if err != nil {
		t.Fatal(err)
	}
}

// What an operator types while the daemon is stopped leaves no file that is
// the operator's: the daemon could not use it.
func TestStoppedCommandsMakeNothing(t *testing.T) {
	commands := [][]string{
		{"status"}, {"queue"}, {"queue", "show", "aa1"}, {"queue", "flush"}, {"trace", "a@example.net"}, {"history"},
		{"forget", "a@example.net", "--yes"}, {"suppressions"}, {"suppressions", "add", "x@example.net"},
	}
	for _, missing := range []string{"records.db", "records.db.lock", "lock", "spool", "queue.db"} {
		t.Run(missing, func(t *testing.T) {
			dir := queueDir(t)
			if err := openRecords(t, dir).Close(); err != nil {
				t.Fatal(err)
			}
			if err := os.RemoveAll(filepath.Join(dir, missing)); err != nil {
				t.Fatal(err)
			}
			giveAway(t, dir)
			before := contents(t, dir)
			for _, args := range commands {
				r := harness.Execute(t, harness.Environ(t), "", append(args, "--data-dir", dir)...) // a process of its own: it becomes the owner
				for path, is := range contents(t, dir) {
					was, there := before[path]
					if !there || strings.HasSuffix(was, "nobody") != strings.HasSuffix(is, "nobody") {
						t.Errorf("%v left %s: %q, was %q\n%s", args, path, is, was, r.All())
					}
				}
			}
		})
	}
}

func openRecords(t *testing.T, dir string) *store.Store {
	t.Helper()
	s, err := store.Open(t.Context(), store.SQLite(dir), store.Options{Part: store.OnlyRecords, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// Files of an older version are the daemon's to convert, and a damaged one its
// to set aside.
func TestStoppedCommandsConvertNothing(t *testing.T) {
	for _, c := range []struct {
		file    string
		damage  func(t *testing.T, path string)
		command string
		code    int
		want    string
	}{
		{"queue.db", makeOlder, "status", terminal.ExitStopped, "start it, then ask again (the queue was written by an older version"},
		{"queue.db", makeOlder, "queue flush", terminal.ExitFailed, "start it, then ask again (the queue was written by an older version"},
		{"records.db", makeOlder, "status", terminal.ExitStopped, "stopped: "},
		{"records.db", makeOlder, "trace a@example.net", terminal.ExitFailed, "start it, then ask again (the records were written by an older version"},
		{"records.db", makeOlder, "suppressions remove a@example.net", terminal.ExitFailed, "start it, then ask again (the records were written by an older version"},
		{"records.db", makeDamaged, "queue", terminal.ExitOK, "late@example.net"},
		{"records.db", makeDamaged, "forget a@example.net --yes", terminal.ExitFailed, "the records are damaged; the daemon sets them aside when it starts"},
	} {
		t.Run(c.file+" "+c.command, func(t *testing.T) {
			dir := queueDir(t)
			if err := openRecords(t, dir).Close(); err != nil {
				t.Fatal(err)
			}
			c.damage(t, filepath.Join(dir, c.file))
			before := contents(t, dir)
			r := harness.Execute(t, harness.Environ(t), "", append(strings.Fields(c.command), "--data-dir", dir)...)
			if r.Code != c.code || !strings.Contains(r.All(), c.want) {
				t.Errorf("exit code %d, want %d and %q:\n%s", r.Code, c.code, c.want, r.All())
			}
			after := contents(t, dir)
			if after[filepath.Join(dir, c.file)] != before[filepath.Join(dir, c.file)] || len(after) != len(before) {
				t.Errorf("the files were changed: %v, then %v", before, after)
			}
		})
	}
}

// makeOlder sets the version of the schema in a database's header.
func makeOlder(t *testing.T, path string) {
	t.Helper()
	overwrite(t, path, 60, make([]byte, 4))
}

func makeDamaged(t *testing.T, path string) {
	t.Helper()
	overwrite(t, path, 0, []byte("no database"))
}

func overwrite(t *testing.T, path string, at int64, with []byte) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt(with, at); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
}
