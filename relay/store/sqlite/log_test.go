package sqlite

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"syscall"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/smtp2rest/smtp2rest/relay"
	"github.com/smtp2rest/smtp2rest/relay/queue"
	"github.com/smtp2rest/smtp2rest/relay/store/sqlite/internal/faultvfs"
)

// manyKinds are mails of all kinds that can come.
func manyKinds() []queue.Mail {
	at := time.UnixMilli(1_790_000_000_000)
	mails := testMails(9, 500)
	for i := range mails {
		m := &mails[i]
		m.Message.Client = relay.Client{Addr: "192.0.2.1:4242", Helo: "client", User: "user", Listener: "127.0.0.1:25", Session: "session"}
		m.Lane, m.Domain, m.Urgent = fmt.Sprintf("lane%d", i%2), "example.com", i == 1
		m.Recipients = append(m.Recipients, queue.Recipient{Number: 1, Addr: "c@example.net"})
	}
	mails[2].Message.Raw = make([]byte, spoolAbove+1)
	mails[3].BounceOf = mails[0].Message.ID
	mails[4].Recipients[1].State = queue.Held
	r := &mails[5].Recipients[0]
	r.State, r.Attempts, r.Ended, r.Bounced, r.Since = queue.Failed, 2, at, true, at.Add(-time.Hour)
	r.History = []queue.Attempt{
		{Started: at, Unknown: true},
		{Started: at, NotAnAttempt: true, Outcome: relay.Outcome{Kind: relay.Refused, Status: 400, MessageID: "id", Detail: "no", Cause: errors.New("why"), RetryAfter: time.Second, Took: time.Millisecond}},
	}
	mails[6].Recipients[0].State = queue.Failed
	mails[7].Recipients[0].Due = time.Now().Add(time.Hour)
	for i := range mails[8].Recipients { // nothing is left to do
		mails[8].Recipients[i].State, mails[8].Recipients[i].Ended = queue.Sent, at
	}
	return mails
}

// everything is what can be asked of a queue.
func everything(t *testing.T, s *Store) (all []any) {
	t.Helper()
	entries, _, err := s.List(ctx, queue.Filter{Limit: maxList})
	must(t, err)
	for _, e := range entries {
		m, err := s.Get(ctx, e.Mail.Message.ID)
		must(t, err)
		for _, r := range m.Recipients {
			for i, a := range r.History {
				r.History[i].Outcome.Cause = nil // an error, compared by its text
				all = append(all, fmt.Sprint(a.Outcome.Cause))
			}
		}
		all = append(all, e.Recipient.Addr, m)
	}
	stats, err := s.Stats(ctx)
	must(t, err)
	return append(all, stats, *s.published.Load())
}

// loseRows makes the next start find the database as it was at a time, as
// after a loss of power that took the end of its log.
func loseRows(t *testing.T, dir string, database []byte) {
	t.Helper()
	for _, suffix := range []string{"-wal", "-shm"} {
		if err := os.Remove(filepath.Join(dir, fileName+suffix)); err != nil && !errors.Is(err, os.ErrNotExist) {
			t.Fatal(err)
		}
	}
	must(t, os.WriteFile(filepath.Join(dir, fileName), database, 0o600))
}

// TestReplay: whatever of logged mail is lost from the database is made anew, and
// is then as it was; and nothing is made twice.
func TestReplay(t *testing.T) {
	dir := t.TempDir()
	o := Options{Dir: dir, Log: quiet(), logGroup: 5, tidyEvery: time.Hour}
	database := func() []byte {
		b, err := os.ReadFile(filepath.Join(dir, fileName))
		must(t, err)
		return b
	}
	open := func() *Store {
		s, err := Open(o)
		must(t, err)
		return s
	}
	s := open()
	must(t, s.Enqueue(ctx, testMails(3, 10)...)) // not logged
	for round := range 3 {
		must(t, s.SetMark(ctx, "a", "b"))
		must(t, s.Close())
		before := database()
		s = open()
		mails := manyKinds()
		must(t, s.Enqueue(ctx, mails...))
		must(t, s.Enqueue(ctx, append(testMails(6, 30), mails[1], mails[2])...)) // some of it once more
		want := everything(t, s)
		must(t, s.Close())
		if round == 1 { // and what came after is not whole
			s = open()
			must(t, s.Enqueue(ctx, testMails(6, 40)...))
			must(t, s.Close())
			files := segmentFiles(t, dir)
			must(t, os.Truncate(files[len(files)-1], 100))
		}
		loseRows(t, dir, before)
		for range 2 {
			s = open()
			if got := everything(t, s); !reflect.DeepEqual(got, want) {
				t.Fatalf("round %d, made anew:\n%+v\nas it was:\n%+v", round, got, want)
			}
			readAll(t, s, mails[:8])
			checkConsistent(t, s)
			must(t, s.Close())
		}
		// All goes, and the segments with it, but their numbers are not used again.
		s = open()
		_, err := s.Drop(ctx, queue.Filter{States: []queue.State{queue.Waiting, queue.Held, queue.Failed}})
		must(t, err)
	}
	must(t, s.Close())
}

// TestReplayTakesWhatIsWhole: a portion of which a byte is missing or wrong, or
// that belongs elsewhere, is no mail.
func TestReplayTakesWhatIsWhole(t *testing.T) {
	dir := t.TempDir()
	o := Options{Dir: dir, Log: quiet(), logGroup: 5, tidyEvery: time.Hour}
	s, err := Open(o)
	must(t, err)
	must(t, s.SetMark(ctx, "a", "b"))
	must(t, s.Enqueue(ctx, testMails(5, 10)...))
	must(t, s.Close())
	before, err := os.ReadFile(filepath.Join(dir, fileName))
	must(t, err)
	s, err = Open(o)
	must(t, err)
	must(t, s.Enqueue(ctx, testMails(5, 300)...))
	must(t, s.Close())
	files := segmentFiles(t, dir)
	file := files[len(files)-1]
	whole, err := os.ReadFile(file)
	must(t, err)
	for range 30 {
		damaged := append([]byte(nil), whole...)
		if at := rand.IntN(len(whole)); rand.IntN(2) == 0 {
			damaged[at] ^= 1 << rand.IntN(8)
		} else {
			damaged = damaged[:at]
		}
		loseRows(t, dir, before)
		must(t, os.WriteFile(file, damaged, 0o600))
		s, err := Open(o)
		must(t, err)
		if stats, err := s.Stats(ctx); err != nil || stats.Mails != 5 {
			t.Fatalf("%d mails, %v", stats.Mails, err)
		}
		must(t, s.Close())
	}
	for i, name := range []string{segmentName(99), ""} { // under another number; after mail that was not there
		loseRows(t, dir, before)
		must(t, os.WriteFile(file, whole, 0o600))
		if i == 0 {
			must(t, os.Rename(file, filepath.Join(dir, spoolDir, name)))
		} else {
			never := o
			never.logGroup = 1000
			s, err := Open(never)
			must(t, err)
			must(t, s.Close())
			loseRows(t, dir, before)
			must(t, os.WriteFile(file, renumbered(t, whole), 0o600))
		}
		s, err := Open(o)
		must(t, err)
		if stats, err := s.Stats(ctx); err != nil || stats.Mails != 5 {
			t.Fatalf("%d mails, %v", stats.Mails, err)
		}
		must(t, s.Close())
	}
}

// renumbered is a segment's content with another number of its first mail.
func renumbered(t *testing.T, b []byte) []byte {
	t.Helper()
	head, ok := decodeHead(b[:portionHeadSize])
	if !ok {
		t.Fatal("no portion")
	}
	head.first++
	return append(head.encode(), b[portionHeadSize:]...)
}

// TestReplaySyncsFirst: a segment that was not synced when the process ended is, before
// rows tell of it.
func TestReplaySyncsFirst(t *testing.T) {
	fs := newMemFS(&faultvfs.Disk{})
	dir := t.TempDir()
	o := Options{Dir: dir, Log: quiet(), spool: fs, logGroup: 5, tidyEvery: time.Hour}
	s, err := Open(o)
	must(t, err)
	must(t, s.SetMark(ctx, "a", "b"))
	must(t, s.Enqueue(ctx, testMails(5, 10)...)) // so that the place is stored
	must(t, s.SetMark(ctx, "a", "c"))
	must(t, s.Close())
	before, err := os.ReadFile(filepath.Join(dir, fileName))
	must(t, err)
	s, err = Open(o)
	must(t, err)
	must(t, s.Enqueue(ctx, testMails(5, 300)...))
	must(t, s.Close())
	loseRows(t, dir, before)
	for _, f := range fs.files {
		for i := range f.reached {
			f.reached[i].synced = false
		}
		f.named = 0
	}
	s = openTest(t, dir, o)
	if stats, err := s.Stats(ctx); err != nil || stats.Mails != 10 {
		t.Fatalf("%d mails, %v", stats.Mails, err)
	}
	f := fs.files[s.spool.path(segmentName(s.writer.lastSegment))]
	if least, _ := f.survives(1 << 30); f.named == 0 || least != f.size {
		t.Errorf("of %d bytes a loss of power leaves %d, its name was synced: %v", f.size, least, f.named > 0)
	}
}

// TestLoggedThoughTheDatabaseFails: what was answered is kept in its segment,
// and comes to the database, in order, before anything else, when that works,
// or with the next start.
func TestLoggedThoughTheDatabaseFails(t *testing.T) {
	for i, restart := range []bool{false, true} {
		for j, tt := range []struct {
			op   faultvfs.Op
			code int32
		}{{faultvfs.Write, faultvfs.FailWrite}, {faultvfs.Write, faultvfs.Full}} {
			t.Run(fmt.Sprint(restart, tt.code), func(t *testing.T) {
				disk := &faultvfs.Disk{}
				vfs := fmt.Sprintf("logged-%d-%d", i, j)
				faultvfs.Register(vfs, disk)
				o := Options{Dir: t.TempDir(), Log: quiet(), vfs: vfs, tidyEvery: time.Hour}
				s, err := Open(o)
				must(t, err)
				must(t, s.Enqueue(ctx, testMails(logGroup, 10)...))
				must(t, s.SetMark(ctx, "a", "a")) // which comes after the rows
				disk.Fail(func(op faultvfs.Op, file string) int32 {
					if op == tt.op && file == "queue.db-wal" {
						return tt.code
					}
					return 0
				})
				mails := testMails(logGroup, 100)
				must(t, s.Enqueue(ctx, mails...))
				if err := s.Enqueue(ctx, testMails(logGroup, 100)...); err == nil {
					t.Fatal("nothing is taken any more until the database works")
				}
				if err := s.SetMark(ctx, "a", "b"); err == nil {
					t.Fatal("SetMark worked")
				}
				if restart {
					_ = s.Close() // which may say that the database fails
					disk.Fail(nil)
					s, err = Open(o)
					must(t, err)
				}
				disk.Fail(nil)
				after := testMails(logGroup, 100)
				must(t, s.Enqueue(ctx, after...))
				readAll(t, s, append(mails, after...))
				entries, _, err := s.List(ctx, queue.Filter{})
				must(t, err)
				if len(entries) != 3*logGroup || entries[logGroup].Mail.Message.ID != mails[0].Message.ID {
					t.Errorf("%d mails, out of order", len(entries))
				}
				checkConsistent(t, s)
				must(t, s.Close())
			})
		}
	}
}

// TestReadersFindWhatWasAnswered although its rows are stored after.
func TestReadersFindWhatWasAnswered(t *testing.T) {
	disk := &faultvfs.Disk{}
	faultvfs.Register("logged-read", disk)
	s := openTest(t, t.TempDir(), Options{vfs: "logged-read", tidyEvery: time.Hour})
	must(t, s.Enqueue(ctx, testMails(logGroup, 10)...))
	must(t, s.SetMark(ctx, "a", "b")) // which comes after the rows
	goOn, writing := make(chan struct{}), make(chan struct{}, 1000)
	disk.Fail(func(op faultvfs.Op, file string) int32 {
		if op == faultvfs.Write {
			writing <- struct{}{}
			<-goOn
		}
		return 0
	})
	mails := testMails(logGroup, 100)
	must(t, s.Enqueue(ctx, mails...)) // answered while its commit is held up
	<-writing
	found := make(chan error, 1)
	go func() {
		_, err := s.Get(ctx, mails[0].Message.ID)
		found <- err
	}()
	select {
	case err := <-found:
		t.Errorf("Get did not wait: %v", err)
		found <- err
	case <-time.After(100 * time.Millisecond):
	}
	close(goOn)
	must(t, <-found)
}

// TestVoid: what a segment that failed has of mail that was refused does not
// come up with the next start.
func TestVoid(t *testing.T) {
	disk := &faultvfs.Disk{}
	faultvfs.Register("void", disk)
	fs := newMemFS(disk)
	o := Options{Dir: t.TempDir(), Log: quiet(), vfs: "void", spool: fs, tidyEvery: time.Hour}
	s, err := Open(o)
	must(t, err)
	must(t, s.Enqueue(ctx, testMails(logGroup, 10)...))
	must(t, s.Close())
	s, err = Open(o)
	must(t, err)
	fs.setFail(func(op, name string) error {
		if op == "sync" {
			fs.setFail(nil) // once
			return syscall.EIO
		}
		return nil
	})
	disk.Fail(func(op faultvfs.Op, file string) int32 {
		if op == faultvfs.Sync {
			return faultvfs.FailSync
		}
		return 0
	})
	if err := s.Enqueue(ctx, testMails(logGroup, 100)...); err == nil {
		t.Fatal("Enqueue worked")
	}
	_ = s.Close() // which may say that the database fails
	disk.Fail(nil)
	for _, suffix := range []string{"-wal", "-shm"} { // in which the failed commit may have survived
		_ = os.Remove(filepath.Join(o.Dir, fileName+suffix))
	}
	for _, f := range fs.files { // so does a file whose removal was not synced
		f.removed = 0
	}
	s = openTest(t, o.Dir, o)
	if stats, err := s.Stats(ctx); err != nil || stats.Mails != logGroup {
		t.Errorf("%d mails, %v", stats.Mails, err)
	}
}

// TestPowerLossInRepair cuts the power at every moment around a sync of the
// database's log that failed while logged mail was in it.
func TestPowerLossInRepair(t *testing.T) {
	disk := &faultvfs.Disk{}
	faultvfs.Register("powerloss-repair", disk)
	fs := newMemFS(disk)
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	chance := rand.New(rand.NewPCG(seed, 0))
	o := Options{Dir: t.TempDir(), Log: quiet(), vfs: "powerloss-repair", spool: fs, rewrite: disk.Rewrite, tidyEvery: time.Hour}
	s, err := Open(o)
	must(t, err)
	var lives []*life
	enqueue := func() {
		mails := testMails(logGroup, 500)
		must(t, s.Enqueue(ctx, mails...))
		for _, m := range mails {
			lives = append(lives, &life{mail: m, acked: disk.Now()})
		}
	}
	for range 20 {
		enqueue()
	}
	must(t, s.Close()) // the log is empty then
	s = openTest(t, o.Dir, o)
	enqueue()
	enqueue()
	start := disk.Now()
	disk.Fail(func(op faultvfs.Op, file string) int32 {
		if op == faultvfs.Sync && strings.HasSuffix(file, "-wal") {
			return faultvfs.FailSync
		}
		return 0
	})
	if err := s.Enqueue(ctx, testMail(10)); err == nil {
		t.Fatal("Enqueue worked")
	}
	disk.Fail(nil)
	enqueue() // no start may put the refused mail before these
	must(t, s.SetMark(ctx, "a", "d"))
	for n := start; n <= disk.Now(); n++ {
		for range 2 {
			dir := t.TempDir()
			must(t, os.Mkdir(filepath.Join(dir, spoolDir), 0o700))
			must(t, disk.PowerLoss(n, dir, chance))
			must(t, fs.powerLoss(n, filepath.Join(dir, spoolDir), chance))
			verify(t, dir, n, lives, false)
		}
	}
}

// TestEncoding: what was encoded is decoded, and nothing else is.
func TestEncoding(t *testing.T) {
	s := openTest(t, t.TempDir(), Options{})
	parcels, err := s.wrap(ctx, manyKinds(), true)
	must(t, err)
	for _, p := range parcels {
		b := p.encode()
		got, err := decode(b)
		must(t, err)
		if again := got.encode(); string(again) != string(b) {
			t.Errorf("%q became %q", b, again)
		}
		for n := range b {
			if _, err := decode(b[:n]); !errors.Is(err, errEncoding) {
				t.Errorf("the first %d of %d bytes: %v", n, len(b), err)
			}
		}
		if _, err := decode(append(b, 0)); !errors.Is(err, errEncoding) {
			t.Errorf("one byte more: %v", err)
		}
	}
	rapid.Check(t, func(t *rapid.T) { // bytes from nowhere
		b := rapid.SliceOf(rapid.Byte()).Draw(t, "b")
		if p, err := decode(b); err == nil {
			p.encode()
		}
		_, _ = parsePortion(b, portionHead{length: int64(len(b))}, 0)
	})
}
