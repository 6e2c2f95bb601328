package sqlite

import (
	"errors"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/smtp2rest/smtp2rest/relay/queue"
	"github.com/smtp2rest/smtp2rest/relay/store/sqlite/internal/faultvfs"
)

// placed is how many mails have their body in a segment.
func placed(t *testing.T, s *Store) int64 {
	t.Helper()
	n := int64(0)
	must(t, s.read(ctx, func(c *conn) (err error) {
		n, err = c.Number("SELECT count(*) FROM mails WHERE body = 3 AND place > 0")
		return err
	}))
	return n
}

func readAll(t *testing.T, s *Store, mails []queue.Mail) {
	t.Helper()
	for _, m := range mails {
		raw, err := readRaw(s, m.Message.ID)
		if err != nil || string(raw) != string(m.Message.Raw) {
			t.Fatalf("%d bytes, %v", len(raw), err)
		}
	}
}

func segmentFiles(t *testing.T, dir string) []string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, spoolDir, segmentPrefix+"*"))
	must(t, err)
	return files
}

// TestSegmentFaults: what a segment does not take goes to the table, and a
// segment that failed is never written to again.
func TestSegmentFaults(t *testing.T) {
	for _, tt := range []struct {
		op  string
		err error
	}{
		{"create", syscall.EIO},
		{"write", syscall.ENOSPC},
		{"write", syscall.EIO},
		{"sync", syscall.EIO},
		{"syncdir", syscall.EIO},
	} {
		t.Run(tt.op+" "+tt.err.Error(), func(t *testing.T) {
			fs := newMemFS(&faultvfs.Disk{})
			s := openTest(t, t.TempDir(), Options{spool: fs})
			failing := func(op, _ string) error {
				if op == tt.op {
					return tt.err
				}
				return nil
			}
			fs.setFail(failing)
			first := testMails(logGroup, 100)
			must(t, s.Enqueue(ctx, first...))
			if n, files := placed(t, s), fs.count(); n != 0 || files != 0 {
				t.Fatalf("%d mails in %d segments", n, files)
			}
			fs.setFail(nil)
			second := testMails(logGroup, 200)
			must(t, s.Enqueue(ctx, second...))
			fs.setFail(failing)
			third := testMails(logGroup, 300)
			must(t, s.Enqueue(ctx, third...))
			fs.setFail(nil)
			before := fs.sizes()
			fourth := testMails(logGroup, 400)
			must(t, s.Enqueue(ctx, fourth...))
			for name, size := range before {
				if tt.op != "create" && tt.op != "syncdir" && fs.sizes()[name] != size {
					t.Errorf("%s was written to after it failed", name)
				}
			}
			for _, mails := range [][]queue.Mail{first, second, third, fourth} {
				readAll(t, s, mails)
			}
			checkConsistent(t, s)
		})
	}
}

// TestCommitWaitsForTheSegment: no row may be durable before its body.
func TestCommitWaitsForTheSegment(t *testing.T) {
	disk := &faultvfs.Disk{}
	faultvfs.Register("segment-wait", disk)
	fs := newMemFS(disk)
	s := openTest(t, t.TempDir(), Options{vfs: "segment-wait", spool: fs, tidyEvery: time.Hour})
	returned := make(chan struct{})
	fs.setFail(func(op, _ string) error {
		if op != "sync" {
			return nil
		}
		before := disk.Now()
		select {
		case <-returned:
			t.Error("Enqueue returned before the segment was synced")
		case <-time.After(200 * time.Millisecond): // enough for a commit that does not wait
		}
		if n := disk.Now() - before; n > 0 {
			t.Errorf("%d writes and syncs of the database meanwhile", n)
		}
		return nil
	})
	must(t, s.Enqueue(ctx, testMails(logGroup, 100)...))
	close(returned)
}

// middleOf is where in its segment the middle of a mail's body is.
func middleOf(t *testing.T, s *Store, m queue.Mail) int64 {
	t.Helper()
	at := int64(0)
	must(t, s.read(ctx, func(c *conn) (err error) {
		at, err = c.Number("SELECT place + size / 2 FROM mails WHERE id = ?", m.Message.ID)
		return err
	}))
	return offsetOf(at)
}

// TestSegmentDamage: a byte that changed is one mail's damage, and a file that
// cannot be read now is none.
func TestSegmentDamage(t *testing.T) {
	dir := t.TempDir()
	s := openTest(t, dir, Options{logGroup: 1})
	mails := testMails(20, 1000)
	must(t, s.Enqueue(ctx, mails...))
	file := segmentFiles(t, dir)[0]
	writeAt(t, file, middleOf(t, s, mails[7]), []byte("y"))
	for i, m := range mails {
		_, err := readRaw(s, m.Message.ID)
		if errors.Is(err, queue.ErrDamaged) != (i == 7) || i != 7 && err != nil {
			t.Errorf("mail %d: %v", i, err)
		}
	}
	must(t, os.Truncate(file, middleOf(t, s, mails[18])))
	if _, err := readRaw(s, mails[18].Message.ID); !errors.Is(err, queue.ErrDamaged) {
		t.Errorf("cut short: %v", err)
	}
	readAll(t, s, mails[:7])
	must(t, os.Rename(file, file+"-away"))
	must(t, os.Symlink(file, file)) // a loop: ELOOP
	if _, err := readRaw(s, mails[0].Message.ID); !errors.Is(err, syscall.ELOOP) || errors.Is(err, queue.ErrDamaged) {
		t.Errorf("a file that cannot be opened: %v", err)
	}
	must(t, os.Remove(file))
	if _, err := readRaw(s, mails[0].Message.ID); !errors.Is(err, queue.ErrDamaged) {
		t.Errorf("a file that is gone: %v", err)
	}
	checkConsistent(t, s)
}

// TestSegmentsAreGivenUp: by rotation, by compaction and when empty, while
// others read what is in them.
func TestSegmentsAreGivenUp(t *testing.T) {
	dir := t.TempDir()
	s := openTest(t, dir, Options{logGroup: 10, segmentSize: 20_000, tidyEvery: time.Millisecond, Queue: queue.Options{ForgetSent: true}})
	var kept []queue.Mail
	for range 10 {
		mails := testMails(40, 500)
		must(t, s.Enqueue(ctx, mails...))
		kept = append(kept, mails[:3]...)
		var gone []queue.Claim
		for _, c := range claimAll(t, s) {
			if c.Token.Mail != mails[0].Message.ID && c.Token.Mail != mails[1].Message.ID && c.Token.Mail != mails[2].Message.ID {
				gone = append(gone, c)
			}
		}
		var stop atomic.Bool
		var wg sync.WaitGroup
		wg.Go(func() {
			for !stop.Load() {
				for _, m := range kept {
					if raw, err := readRaw(s, m.Message.ID); err != nil || len(raw) != 500 {
						t.Errorf("%d bytes, %v", len(raw), err)
						return
					}
				}
			}
		})
		settle(t, s, gone)
		until(t, "the segment is given up", func() bool { return placed(t, s) == 0 && len(segmentFiles(t, dir)) == 0 })
		stop.Store(true)
		wg.Wait()
	}
	readAll(t, s, kept)
	checkConsistent(t, s)
}

// TestSegmentsAtTheStart: a start keeps the segments that have mail, and
// writes to none of them.
func TestSegmentsAtTheStart(t *testing.T) {
	dir := t.TempDir()
	o := Options{Dir: dir, Log: quiet(), logGroup: 10, tidyEvery: time.Hour, Queue: queue.Options{ForgetSent: true}}
	s, err := Open(o)
	must(t, err)
	must(t, s.Enqueue(ctx, testMails(10, 100)...))
	settleAll(t, s)
	must(t, s.Close())
	orphan := filepath.Join(dir, spoolDir, segmentName(7))
	must(t, os.WriteFile(orphan, []byte("x"), 0o600))
	s, err = Open(o)
	must(t, err)
	if files := segmentFiles(t, dir); len(files) != 0 {
		t.Fatalf("left over: %v", files)
	}
	first := testMails(10, 100)
	must(t, s.Enqueue(ctx, first...))
	must(t, s.Close())
	before := segmentFiles(t, dir)
	if len(before) != 1 || before[0] == orphan {
		t.Fatalf("segments: %v", before)
	}
	content, err := os.ReadFile(before[0])
	must(t, err)
	s = openTest(t, dir, o)
	second := testMails(10, 100)
	must(t, s.Enqueue(ctx, second...))
	if files := segmentFiles(t, dir); len(files) != 2 {
		t.Fatalf("segments: %v", files)
	}
	if after, err := os.ReadFile(before[0]); err != nil || string(after) != string(content) {
		t.Errorf("the old segment was written to: %v", err)
	}
	readAll(t, s, first)
	readAll(t, s, second)
	checkConsistent(t, s)
}
