package app

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/smtp2rest/smtp2rest/relay/admin"
	"github.com/smtp2rest/smtp2rest/relay/provider/nexuspromail/sandbox"
	"github.com/smtp2rest/smtp2rest/relay/store"
)

// handOver hands one mail over and returns the reply to it.
func handOver(t *testing.T, a *App, to string) string {
	t.Helper()
	c := dial(t, a.Addrs()[0].String())
	c.data(to)
	c.send(firstHalf + secondHalf)
	got := c.reply()
	_ = c.conn.Close()
	return got
}

// operator asks the daemon with that data directory.
func operator(t *testing.T, dir string) *admin.Client {
	t.Helper()
	c, err := admin.Dial(t.Context(), admin.SocketIn(dir))
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// warnings are what an operator is told.
func warnings(t *testing.T, dir string) string {
	t.Helper()
	s, err := operator(t, dir).Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var b strings.Builder
	for _, n := range s.Warnings {
		fmt.Fprintf(&b, "%s: %s; %s\n", n.What, n.Why, n.Do)
	}
	return b.String()
}

// inDir has a queue in dir and its listener on a free port.
func inDir(dir, more string) string {
	return fmt.Sprintf("[[listener]]\naddress = \"127.0.0.1:0\"\n[queue]\ndata_dir = %q\n%s\n", dir, more)
}

// awaitAccepted waits until the API took n mails.
func awaitAccepted(t *testing.T, box *sandbox.Server, n int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := box.WaitFor(ctx, func(s sandbox.Stats) bool { return s.Accepted >= n }); err != nil {
		t.Errorf("%d mails were accepted, want %d: %v", box.Stats().Accepted, n, err)
	}
}

// Where there is no room nothing is taken that could not be kept, the log says
// why, and what needs no room is delivered all the same.
func TestNoRoomForMail(t *testing.T) {
	tests := []struct{ name, settings, log, note string }{
		{"the disk is to be kept freer than it is", "min_free = \"1048576GiB\"", "are kept free", "are kept free"},
		{"the queue may hold one mail", "max_mails = 1", "1 mails wait at most", "1 of the 1 waiting mails that queue.max_mails allows"},
		{"the queue may hold few bytes", "max_size = 70", "70 bytes at most", " of the 70 bytes that queue.max_size allows"},
	}
	for i, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			box := newSandbox(t)
			dir := t.TempDir()
			a, log := start(t, load(t, box.URL(), inDir(dir, tt.settings+"\n[delivery]\nretry_first = \"1h\"\nretry_max = \"1h\"")))
			if i > 0 {
				if got := handOver(t, a, "unavailable@example.net"); !strings.HasPrefix(got, "250 2.0.0 queued ") {
					t.Errorf("while there is room: %q", got)
				}
			}
			if got := handOver(t, a, "unavailable@example.org"); !strings.HasPrefix(got, "452 4.3.1 ") {
				t.Errorf("without room: %q", got)
			}
			if s := log.String(); !strings.Contains(s, "level=ERROR") || !strings.Contains(s, tt.log) {
				t.Errorf("the log has no %q:\n%s", tt.log, s)
			}
			if told := warnings(t, dir); !strings.Contains(told, "answered 452") || !strings.Contains(told, tt.note) {
				t.Errorf("an operator is not told why mail is refused:\n%s", told)
			}
			if got := handOver(t, a, "bob@example.net"); !strings.HasPrefix(got, "250 2.0.0 accepted ") {
				t.Errorf("a mail that needs no room: %q", got)
			}
		})
	}
}

// There is room again once the backlog drained.
func TestRoomComesBack(t *testing.T) {
	box := newSandbox(t)
	a, _ := start(t, load(t, box.URL(), inDir(t.TempDir(), "max_mails = 1\n[delivery]\nretry_first = \"1s\"\nretry_max = \"1s\"")))
	if got := handOver(t, a, "down+1@example.net"); !strings.HasPrefix(got, "250 2.0.0 queued ") {
		t.Errorf("with room: %q", got)
	}
	if got := handOver(t, a, "down+1@example.org"); !strings.HasPrefix(got, "452 4.3.1 ") {
		t.Errorf("without room: %q", got)
	}
	awaitAccepted(t, box, 1)
	for begin := time.Now(); ; { // the API took it a moment before the queue lets go of it
		got := handOver(t, a, "down+1@example.com")
		if strings.HasPrefix(got, "250 ") {
			break
		}
		if time.Since(begin) > patience {
			t.Fatalf("after the backlog drained: %q", got)
		}
	}
}

// What keeps the store from opening is said in words that name the setting,
// the place and the cause, and nothing listens.
func TestStartErrorsAreClear(t *testing.T) {
	used := t.TempDir()
	start(t, load(t, newSandbox(t).URL(), inDir(used, "")))
	garbage := t.TempDir()
	if err := os.WriteFile(filepath.Join(garbage, "queue.db"), bytes.Repeat([]byte("no database "), 1000), 0o600); err != nil {
		t.Fatal(err)
	}
	tests := []struct{ name, dir, cause string }{
		{"used by another daemon", used, "another smtp2rest is using this data directory"},
		{"something else's file", garbage, "queue.db is damaged"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			a, _ := newApp(load(t, newSandbox(t).URL(), inDir(tt.dir, "")))
			err := a.Start(t.Context())
			if err == nil {
				_ = stop(a, patience)
				t.Fatal("it started")
			}
			for _, want := range []string{"queue.data_dir", tt.dir, tt.cause} {
				if !strings.Contains(err.Error(), want) {
					t.Errorf("the error has no %q: %v", want, err)
				}
			}
			if len(a.Addrs()) != 0 {
				t.Error("it listens")
			}
		})
	}
}

// The daemon that was there first goes on as if nothing had been.
func TestASecondDaemonDoesNotDisturbTheFirst(t *testing.T) {
	box, dir := newSandbox(t), t.TempDir()
	a, _ := start(t, load(t, box.URL(), inDir(dir, "[delivery]\nretry_first = \"1s\"")))
	for range 3 {
		second, _ := newApp(load(t, box.URL(), inDir(dir, "")))
		if err := second.Start(t.Context()); err == nil {
			t.Fatal("two daemons share a queue")
		}
	}
	if got := handOver(t, a, "down+1@example.net"); !strings.HasPrefix(got, "250 2.0.0 queued ") {
		t.Errorf("the reply is %q", got)
	}
	awaitAccepted(t, box, 1)
}

// A damaged database stops the start, is kept as it is, and both ways out that
// the error names work: the file put right, and set aside.
func TestADamagedDatabase(t *testing.T) {
	damages := map[string]func(b []byte) []byte{
		"overwritten":  func(b []byte) []byte { copy(b[4096:], bytes.Repeat([]byte{0xA5}, len(b)-8192)); return b },
		"cut in half":  func(b []byte) []byte { return b[:len(b)/2] },
		"without head": func(b []byte) []byte { copy(b, make([]byte, 100)); return b },
	}
	for name, damage := range damages {
		t.Run(name, func(t *testing.T) {
			box, dir := newSandbox(t), t.TempDir()
			conf := func() string { return inDir(dir, "[delivery]\nretry_first = \"300ms\"\nretry_max = \"300ms\"") }
			if err := box.SetOutage(sandbox.OutageUnavailable); err != nil {
				t.Fatal(err)
			}
			a, _ := start(t, load(t, box.URL(), conf()))
			if got := handOver(t, a, "bob@example.net"); !strings.HasPrefix(got, "250 2.0.0 queued ") {
				t.Fatalf("the reply is %q", got)
			}
			if err := stop(a, patience); err != nil {
				t.Fatal(err)
			}
			path := filepath.Join(dir, "queue.db")
			whole, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			damaged := damage(bytes.Clone(whole))
			if err := os.WriteFile(path, damaged, 0o600); err != nil {
				t.Fatal(err)
			}
			a, _ = newApp(load(t, box.URL(), conf()))
			if err := a.Start(t.Context()); err == nil || !strings.Contains(err.Error(), path+" is damaged") || !strings.Contains(err.Error(), ".recover") {
				t.Fatalf("Start: %v", err)
			}
			if after, err := os.ReadFile(path); err != nil || !bytes.Equal(after, damaged) {
				t.Errorf("the damaged file was changed (%v)", err)
			}
			if err := box.SetOutage(sandbox.OutageNone); err != nil {
				t.Fatal(err)
			}
			// Restored from a backup.
			if err := os.WriteFile(path, whole, 0o600); err != nil {
				t.Fatal(err)
			}
			a, _ = start(t, load(t, box.URL(), conf()))
			awaitAccepted(t, box, 1)
			if err := stop(a, patience); err != nil {
				t.Fatal(err)
			}
			// Or moved out of the way.
			if err := os.WriteFile(path, damaged, 0o600); err != nil {
				t.Fatal(err)
			}
			aside, err := store.SetAside(store.SQLite(dir), time.Now())
			if err != nil {
				t.Fatal(err)
			}
			if kept, err := os.ReadFile(aside); err != nil || !bytes.Equal(kept, damaged) {
				t.Errorf("%s is not what was damaged (%v)", aside, err)
			}
			a, _ = start(t, load(t, box.URL(), conf()))
			if got := handOver(t, a, "unavailable+1@example.org"); !strings.HasPrefix(got, "250 2.0.0 queued ") {
				t.Errorf("with an empty queue: %q", got)
			}
			awaitAccepted(t, box, 2)
		})
	}
}
