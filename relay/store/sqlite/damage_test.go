package sqlite

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/smtp2rest/smtp2rest/relay"
	"github.com/smtp2rest/smtp2rest/relay/queue"
	"github.com/smtp2rest/smtp2rest/relay/store/internal/db"
)

// writeAt changes bytes of a file.
func writeAt(t *testing.T, path string, off int64, b []byte) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	must(t, err)
	_, err = f.WriteAt(b, off)
	must(t, errors.Join(err, f.Close()))
}

// overwrite damages the first page of a table or index.
func overwrite(t *testing.T, path, name string) {
	t.Helper()
	c, err := db.Connect("file:" + path)
	must(t, err)
	root, err := c.Number("SELECT rootpage FROM sqlite_schema WHERE name = ?", name)
	must(t, err)
	must(t, c.Close())
	writeAt(t, path, (root-1)*4096, make([]byte, 4096))
}

// made is a closed data directory with a few mails.
func made(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	s, err := OpenQueue(Options{Dir: dir, Log: quiet()})
	must(t, err)
	for range 200 {
		must(t, s.Enqueue(ctx, testMail(500)))
	}
	must(t, s.Enqueue(ctx, testMail(spoolAbove+1)))
	must(t, s.Close())
	return dir
}

func TestDamagedDatabase(t *testing.T) {
	for _, tt := range []struct {
		name   string
		damage func(t *testing.T, path string)
		newer  bool
	}{
		{"cut short", func(t *testing.T, path string) { must(t, os.Truncate(path, 40_000)) }, false},
		{"cut to almost nothing", func(t *testing.T, path string) { must(t, os.Truncate(path, 50)) }, false},
		{"overwritten", func(t *testing.T, path string) { writeAt(t, path, 0, make([]byte, 4096)) }, false},
		{"a table overwritten", func(t *testing.T, path string) { overwrite(t, path, "recipients") }, false},
		{"the mails overwritten", func(t *testing.T, path string) { overwrite(t, path, "mails") }, false},
		{"the mails' ids overwritten", func(t *testing.T, path string) { overwrite(t, path, "mails_id") }, false},
		{"an index overwritten", func(t *testing.T, path string) { overwrite(t, path, "recipients_ready") }, false},
		{"newer", func(t *testing.T, path string) { writeAt(t, path, 60, []byte{0, 0, 0, 99}) }, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := made(t)
			path := filepath.Join(dir, QueueFile)
			tt.damage(t, path)
			before, err := os.ReadFile(path)
			must(t, err)
			s, err := OpenQueue(Options{Dir: dir, Log: quiet()})
			if err == nil {
				must(t, s.Close())
				t.Fatal("opened")
			}
			var corrupt *CorruptError
			if errors.Is(err, ErrNewer) != tt.newer || errors.As(err, &corrupt) == tt.newer {
				t.Fatalf("error: %v", err)
			}
			after, err := os.ReadFile(path)
			must(t, err)
			if string(before) != string(after) {
				t.Fatal("the file was changed")
			}
			kept, err := SetAside(dir, time.Now())
			must(t, err)
			if after, err = os.ReadFile(kept); err != nil || string(before) != string(after) {
				t.Fatalf("what was set aside is not what was there: %v", err)
			}
			must(t, openQueue(t, dir, Options{}).Enqueue(ctx, testMail(1)))
		})
	}
}

func TestAnotherProgramsDatabase(t *testing.T) {
	dir := t.TempDir()
	c, err := db.Connect("file:"+filepath.Join(dir, QueueFile), "PRAGMA application_id=7", "CREATE TABLE t(x)")
	must(t, err)
	must(t, c.Close())
	if _, err := OpenQueue(Options{Dir: dir, Log: quiet()}); err == nil || !strings.Contains(err.Error(), "another program") {
		t.Fatalf("Open: %v", err)
	}
}

func TestLocked(t *testing.T) {
	dir := t.TempDir()
	s := openQueue(t, dir, Options{})
	if _, err := OpenQueue(Options{Dir: dir, Log: quiet()}); !errors.Is(err, queue.ErrLocked) {
		t.Fatalf("Open: %v", err)
	}
	if _, err := SetAside(dir, time.Now()); !errors.Is(err, queue.ErrLocked) {
		t.Fatalf("SetAside: %v", err)
	}
	must(t, s.Enqueue(ctx, testMail(1)))
}

func TestOrphansAreSwept(t *testing.T) {
	dir := made(t)
	orphan := filepath.Join(dir, spoolDir, "orphan")
	must(t, os.WriteFile(orphan, []byte("x"), 0o600))
	s := openQueue(t, dir, Options{})
	if _, err := os.Stat(orphan); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the orphan is there: %v", err)
	}
	entries, err := os.ReadDir(filepath.Join(dir, spoolDir))
	must(t, err)
	if len(entries) != 1 {
		t.Errorf("%d files in the spool", len(entries))
	}
	must(t, os.Remove(filepath.Join(dir, spoolDir, entries[0].Name())))
	claims := claimAll(t, s)
	last := claims[len(claims)-1].Token.Mail
	if _, err := readRaw(s, last); !errors.Is(err, queue.ErrDamaged) {
		t.Errorf("a mail whose file is gone: %v", err)
	}
}

// TestDamagedEnvelope: a changed address or sender is never sent.
func TestDamagedEnvelope(t *testing.T) {
	for _, q := range []string{
		"UPDATE recipients SET addr = 'eve@evil' WHERE mail = (SELECT min(seq) FROM mails)",
		"UPDATE mails SET sender = 'eve@evil' WHERE seq = (SELECT min(seq) FROM mails)",
		"UPDATE mails SET client = 'x' WHERE seq = (SELECT min(seq) FROM mails)",
	} {
		t.Run(q, func(t *testing.T) {
			dir := t.TempDir()
			s, err := OpenQueue(Options{Dir: dir, Log: quiet()})
			must(t, err)
			bad, good := testMail(10), testMail(10)
			must(t, s.Enqueue(ctx, bad, good))
			must(t, s.Close())
			c, err := db.Connect("file:"+filepath.Join(dir, QueueFile), q)
			must(t, err)
			must(t, c.Close())
			s = openQueue(t, dir, Options{})
			claims := claimAll(t, s)
			if len(claims) != 1 || claims[0].Token.Mail != good.Message.ID {
				t.Fatalf("claims: %+v", claims)
			}
			m, err := s.Get(ctx, bad.Message.ID)
			must(t, err)
			if !m.Damaged || m.Recipients[0].State != queue.Failed {
				t.Fatalf("mail: %+v", m)
			}
			checkConsistent(t, s)
		})
	}
}

// TestSpaceIsGivenBack: after a backlog drained the files are small again,
// without a restart.
func TestSpaceIsGivenBack(t *testing.T) {
	dir := t.TempDir()
	s := openQueue(t, dir, Options{Queue: queue.Options{ForgetSent: true}, tidyEvery: time.Millisecond})
	size := func() int64 {
		sum := int64(0)
		must(t, filepath.WalkDir(dir, func(_ string, d os.DirEntry, err error) error {
			if err != nil || d.IsDir() {
				return err
			}
			info, err := d.Info()
			if errors.Is(err, os.ErrNotExist) { // removed meanwhile
				return nil
			}
			sum += info.Size()
			return err
		}))
		return sum
	}
	for range 20 {
		var mails []queue.Mail
		for range 64 {
			mails = append(mails, testMail(20_000))
		}
		must(t, s.Enqueue(ctx, mails...))
		for range 10 {
			must(t, s.Enqueue(ctx, testMail(20_000)))
		}
	}
	if size() < 24<<20 {
		t.Fatalf("%d bytes for 30 MB", size())
	}
	settleAll(t, s)
	until(t, "the files are small again", func() bool { return size() <= (keepPages+300)*4096 })
}

// A database that is gone, or cut to nothing, is no reason to remove the mail
// beside it: the bodies it knew, or the log, which SQLite removes with a
// database that it begins anew.
func TestTheDatabaseIsMissing(t *testing.T) {
	gone := map[string]func(path string) error{
		"removed": os.Remove,
		"empty":   func(path string) error { return os.Truncate(path, 0) },
	}
	for name, lose := range gone {
		for beside, size := range map[string]int{spoolDir: spoolAbove + 1, QueueFile + "-wal": 100} {
			t.Run(name+" beside "+beside, func(t *testing.T) {
				dir := t.TempDir()
				s := openQueue(t, dir, Options{})
				m := queue.NewMail(relay.Message{ID: "id", From: "a@b.example", Recipients: []string{"c@d.example"}, Raw: make([]byte, size), ReceivedAt: time.Now()})
				must(t, s.Enqueue(t.Context(), m))
				log, err := os.ReadFile(filepath.Join(dir, QueueFile+"-wal"))
				must(t, err)
				must(t, s.Close())
				if beside != spoolDir {
					must(t, os.WriteFile(filepath.Join(dir, beside), log, 0o600)) // as a kill leaves it
				}
				must(t, lose(filepath.Join(dir, QueueFile)))
				if _, err := OpenQueue(Options{Dir: dir, Log: quiet()}); err == nil || !strings.Contains(err.Error(), "set-aside") {
					t.Fatalf("the start says %v", err)
				}
				if info, err := os.Stat(filepath.Join(dir, beside)); err != nil || info.Size() == 0 {
					t.Errorf("%s: %v", beside, err)
				}
				left, err := os.ReadDir(filepath.Join(dir, spoolDir))
				must(t, err)
				if beside == spoolDir && len(left) != 1 {
					t.Errorf("the spool has %d files", len(left))
				}
				_, err = SetAside(dir, time.Now())
				must(t, err)
				must(t, openQueue(t, dir, Options{}).Close())
			})
		}
	}
}

// TestTheCountsAreMissing: a database that was rescued without them is counted
// anew, and works as before.
func TestTheCountsAreMissing(t *testing.T) {
	dir := t.TempDir()
	s, err := OpenQueue(Options{Dir: dir, Log: quiet()})
	must(t, err)
	mails := manyKinds()
	must(t, s.Enqueue(ctx, mails...))
	for range 3 {
		must(t, s.Enqueue(ctx, testMail(100))) // not in a group
	}
	claims := claimAll(t, s)
	settle(t, s, claims[:2])
	must(t, s.Settle(ctx, queue.Settlement{Token: claims[2].Token, Result: queue.GaveUp, At: time.Now()}))
	must(t, s.Close())
	want := func() counts {
		s, err := OpenQueue(Options{Dir: dir, Log: quiet()})
		must(t, err)
		defer func() { must(t, s.Close()) }()
		return *s.published.Load()
	}()
	c, err := db.Connect("file:"+filepath.Join(dir, QueueFile), "DELETE FROM counts",
		"INSERT INTO recipients SELECT 1000, n, addr, turn, lane, 0, hold, due, lease, attempts, since, started, ended, fence, settled, bounced, sum FROM recipients WHERE mail = 2")
	must(t, err)
	must(t, c.Close())
	if _, err := OpenQueue(Options{Dir: dir, Log: quiet(), Existing: true}); !errors.Is(err, ErrOlder) {
		t.Errorf("somebody else's queue: %v", err)
	}
	s = openQueue(t, dir, Options{})
	got := *s.published.Load()
	if got != want {
		t.Errorf("counted\n%+v, want\n%+v", got, want)
	}
	checkConsistent(t, s)
	must(t, s.Enqueue(ctx, testMail(10)))
	if n := len(claimAll(t, s)); n == 0 {
		t.Error("nothing can be claimed")
	}
}

// TestBouncesBesideALostMail: recipients whose mail a repair lost hold up no
// other's bounce.
func TestBouncesBesideALostMail(t *testing.T) {
	dir := t.TempDir()
	s, err := OpenQueue(Options{Dir: dir, Log: quiet()})
	must(t, err)
	lost, other := testMail(10), testMail(10)
	for _, m := range []*queue.Mail{&lost, &other} {
		m.Recipients[0].State, m.Recipients[0].Ended = queue.Failed, time.Now()
		must(t, s.Enqueue(ctx, *m))
	}
	must(t, s.do(ctx, func(t *tx) error {
		t.exec("DELETE FROM mails WHERE id = ?", lost.Message.ID)
		return nil
	}))
	due, err := s.BouncesDue(ctx, time.Now(), time.Hour, 10)
	must(t, err)
	if len(due) != 1 || due[0].Mail.Message.ID != other.Message.ID {
		t.Errorf("%d bounces are due", len(due))
	}
	must(t, s.Close())
}

// TestAnOlderDatabase beside a newer spool, as after a restore of the one alone,
// takes no mail for what a crash left over.
func TestAnOlderDatabase(t *testing.T) {
	dir := t.TempDir()
	open := func() *Queue {
		s, err := OpenQueue(Options{Dir: dir, Log: quiet()})
		must(t, err)
		return s
	}
	s := open()
	old := testMail(spoolAbove + 1)
	must(t, s.Enqueue(ctx, old))
	must(t, s.Close())
	database, err := os.ReadFile(filepath.Join(dir, QueueFile))
	must(t, err)
	for range 2 { // the second start is of a database that is no older
		s = open()
		must(t, s.Enqueue(ctx, testMail(spoolAbove+2)))
		must(t, s.Close())
		must(t, os.WriteFile(filepath.Join(dir, spoolDir, "1-LEFTOVER"), nil, 0o600))
	}
	if _, err := os.Stat(filepath.Join(dir, spoolDir, "1-LEFTOVER")); err != nil {
		t.Fatal(err)
	}
	must(t, open().Close())
	if left := filesIn(t, dir, "spool*/*"); len(left) != 3 {
		t.Errorf("after a start without a restore there are %v", left)
	}
	must(t, os.WriteFile(filepath.Join(dir, QueueFile), database, 0o600))
	s = openQueue(t, dir, Options{})
	readAll(t, s, []queue.Mail{old})
	if aside := filesIn(t, dir, "spool.unknown-*/*"); len(aside) != 2 {
		t.Errorf("%v are set aside, want two", aside)
	}
	if kept := filesIn(t, dir, "spool/*"); len(kept) != 1 {
		t.Errorf("the spool has %v", kept)
	}
}
