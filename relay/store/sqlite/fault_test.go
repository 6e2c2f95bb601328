package sqlite

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/smtp2rest/smtp2rest/relay"
	"github.com/smtp2rest/smtp2rest/relay/queue"
	"github.com/smtp2rest/smtp2rest/relay/store/internal/db"
	"github.com/smtp2rest/smtp2rest/test/harness"
)

var ctx = context.Background()

// testMail is a mail of a size from one sender to one recipient.
func testMail(size int) queue.Mail {
	now := time.Now()
	m := queue.NewMail(relay.Message{ID: relay.NewID(now), From: "a@b", Recipients: []string{"x@y"},
		Raw: []byte(strings.Repeat("x", size)), ReceivedAt: now})
	m.Lane = "a@b"
	return m
}

func testMails(n, size int) []queue.Mail {
	mails := make([]queue.Mail, n)
	for i := range mails {
		mails[i] = testMail(size)
	}
	return mails
}

// until waits for something that the writer does by itself.
func until(t *testing.T, what string, done func() bool) {
	t.Helper()
	end, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	look := time.NewTicker(5 * time.Millisecond)
	defer look.Stop()
	for !done() {
		select {
		case <-look.C:
		case <-end.Done():
			t.Fatalf("waited in vain until %s", what)
		}
	}
}

func claimAll(t *testing.T, s *Queue) []queue.Claim {
	t.Helper()
	claims, err := s.Claim(ctx, queue.ClaimRequest{Now: time.Now(), Max: 1000})
	must(t, err)
	return claims
}

// settleAll sends all that waits.
func settleAll(t *testing.T, s *Queue) {
	t.Helper()
	for claims := claimAll(t, s); len(claims) > 0; claims = claimAll(t, s) {
		settle(t, s, claims)
	}
}

func settle(t *testing.T, s *Queue, claims []queue.Claim) {
	t.Helper()
	var all []queue.Settlement
	for _, c := range claims {
		all = append(all, queue.Settlement{Token: c.Token, Result: queue.Done, At: time.Now()})
	}
	must(t, s.Settle(ctx, all...))
}

// TestStorageFaults: each fault has its error, nothing that was stored before
// is lost, and the queue works again once its storage does.
func TestStorageFaults(t *testing.T) {
	for i, tt := range []struct {
		name string
		op   diskOp
		file string
		code int32
		full bool
	}{
		{"write", opWrite, "queue.db-wal", failWrite, false},
		{"sync", opSync, "queue.db-wal", failSync, false},
		{"full", opWrite, "queue.db-wal", failFull, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			disk := &faultDisk{}
			vfs := fmt.Sprint("fault", i)
			registerVFS(vfs, disk)
			s := openQueue(t, t.TempDir(), Options{vfs: vfs})
			must(t, s.Enqueue(ctx, testMail(100), testMail(100)))
			claims := claimAll(t, s)
			disk.Fail(func(op diskOp, file string) int32 {
				if op == tt.op && file == tt.file {
					return tt.code
				}
				return 0
			})
			lost := testMail(100)
			for range 2 {
				err := s.Enqueue(ctx, lost)
				if err == nil || errors.Is(err, queue.ErrFull) != tt.full {
					t.Fatalf("Enqueue: %v", err)
				}
				err = s.Settle(ctx, queue.Settlement{Token: claims[0].Token, Result: queue.Done, At: time.Now()})
				if err == nil || errors.Is(err, queue.ErrFull) || errors.Is(err, queue.ErrStale) {
					t.Fatalf("Settle: %v", err)
				}
				if _, err := s.Get(ctx, lost.Message.ID); !errors.Is(err, queue.ErrNotFound) {
					t.Fatalf("a refused mail is there: %v", err)
				}
			}
			disk.Fail(nil)
			must(t, s.Enqueue(ctx, lost))
			must(t, s.Settle(ctx, queue.Settlement{Token: claims[0].Token, Result: queue.Done, At: time.Now()}))
			st, err := s.Stats(ctx)
			must(t, err)
			if st.Recipients[queue.Sent] != 1 || st.Recipients[queue.Claimed] != 1 || st.Recipients[queue.Waiting] != 1 {
				t.Fatalf("stats: %+v", st)
			}
			checkConsistent(t, s)
		})
	}
}

// TestClaimFaults: a claim whose commit failed is nobody's, so it must not be
// left for the next start to end.
func TestClaimFaults(t *testing.T) {
	for i, op := range []diskOp{opWrite, opSync} {
		disk := &faultDisk{}
		vfs := fmt.Sprint("claimfault", i)
		registerVFS(vfs, disk)
		s := openQueue(t, t.TempDir(), Options{vfs: vfs})
		must(t, s.Enqueue(ctx, testMail(100), testMail(100)))
		disk.Fail(func(at diskOp, file string) int32 {
			if at == op && file == "queue.db-wal" {
				return map[diskOp]int32{opWrite: failWrite, opSync: failSync}[op]
			}
			return 0
		})
		for range 2 {
			if claims, err := s.Claim(ctx, queue.ClaimRequest{Now: time.Now(), Max: 9}); err == nil {
				t.Fatalf("%d claims on a disk that fails", len(claims))
			}
		}
		disk.Fail(nil)
		if claims := claimAll(t, s); len(claims) != 2 {
			t.Fatalf("%d claims of 2 once the disk works", len(claims))
		}
		checkConsistent(t, s)
	}
}

func TestSpoolFaults(t *testing.T) {
	for _, tt := range []struct {
		op   string
		err  error
		full bool
	}{
		{"create", syscall.EIO, false},
		{"create", syscall.ENOSPC, true},
		{"write", syscall.ENOSPC, true},
		{"write", syscall.EDQUOT, true},
		{"sync", syscall.EIO, false},
		{"syncdir", syscall.EIO, false},
	} {
		t.Run(tt.op+" "+tt.err.Error(), func(t *testing.T) {
			fs := newMemFS(&faultDisk{})
			s := openQueue(t, t.TempDir(), Options{spool: fs})
			small, large := testMail(10), testMail(spoolAbove+1)
			fs.fail = func(op, _ string) error {
				if op == tt.op {
					return tt.err
				}
				return nil
			}
			err := s.Enqueue(ctx, large, small)
			if !errors.Is(err, tt.err) || errors.Is(err, queue.ErrFull) != tt.full {
				t.Fatalf("Enqueue: %v", err)
			}
			if n := fs.count(); n != 0 {
				t.Fatalf("%d files are left over", n)
			}
			must(t, s.Enqueue(ctx, small)) // which needs no file
			fs.fail = nil
			must(t, s.Enqueue(ctx, large))
			must(t, s.Enqueue(ctx, large)) // whose second file is not needed
			raw, err := readRaw(s, large.Message.ID)
			must(t, err)
			if len(raw) != spoolAbove+1 || fs.count() != 1 {
				t.Fatalf("%d bytes in %d files", len(raw), fs.count())
			}
			for _, c := range claimAll(t, s) {
				must(t, s.Settle(ctx, queue.Settlement{Token: c.Token, Result: queue.Done, At: time.Now()}))
			}
			if n := fs.count(); n != 0 {
				t.Fatalf("%d files are left over", n)
			}
		})
	}
}

// TestSpoolReadError: a file that cannot be read now is not a damaged mail.
func TestSpoolReadError(t *testing.T) {
	fs := newMemFS(&faultDisk{})
	s := openQueue(t, t.TempDir(), Options{spool: fs})
	m := testMail(spoolAbove + 1)
	must(t, s.Enqueue(ctx, m))
	fs.fail = func(op, _ string) error { return syscall.EMFILE }
	if _, err := readRaw(s, m.Message.ID); !errors.Is(err, syscall.EMFILE) || errors.Is(err, queue.ErrDamaged) {
		t.Fatalf("Raw: %v", err)
	}
	fs.fail = nil
	if _, err := readRaw(s, m.Message.ID); err != nil {
		t.Fatal(err)
	}
}

// TestDiskFull fills a real file system, and drains the queue on it.
func TestDiskFull(t *testing.T) {
	for _, tt := range []struct{ size, group int }{{10_000, 1}, {spoolAbove + 1, 1}, {10_000, 20}} {
		t.Run(fmt.Sprint(tt), func(t *testing.T) {
			size := tt.size
			dir := onTmpfs(t, "56m")
			s := openQueue(t, dir, Options{Queue: queue.Options{MinFree: 40 << 20, ForgetSent: true}, tidyEvery: time.Millisecond})
			stored := map[string]bool{}
			var err error
			for err == nil {
				mails := testMails(tt.group, size)
				if err = s.Enqueue(ctx, mails...); err == nil {
					for _, m := range mails {
						stored[m.Message.ID] = true
					}
				}
			}
			if !errors.Is(err, queue.ErrFull) || len(stored) < 20 {
				t.Fatalf("after %d mails: %v", len(stored), err)
			}
			for claims := claimAll(t, s); len(claims) > 0; claims = claimAll(t, s) { // there is room kept for this
				for _, c := range claims {
					raw, err := readRaw(s, c.Token.Mail)
					if err != nil || len(raw) != size {
						t.Fatalf("%d bytes, %v", len(raw), err)
					}
					delete(stored, c.Token.Mail)
				}
				settle(t, s, claims)
			}
			if len(stored) != 0 {
				t.Fatalf("%d mails were lost", len(stored))
			}
			until(t, "space is given back", func() bool { return !errors.Is(s.Enqueue(ctx, testMails(tt.group, size)...), queue.ErrFull) })
		})
	}
}

// TestDiskFullWithNothingToBeKeptFree: the queue keeps what it needs itself, so
// that all that makes room goes on, even while the log cannot be cut.
func TestDiskFullWithNothingToBeKeptFree(t *testing.T) {
	for _, tt := range []struct{ size, group int }{{1000, 1}, {100_000, 1}, {100_000, 20}, {spoolAbove + 1, 1}} {
		t.Run(fmt.Sprint(tt), func(t *testing.T) {
			if tt.size == 1000 {
				harness.OnlyAll(t, "thousands of mails fit")
			}
			dir := onTmpfs(t, "64m")
			s, err := OpenQueue(Options{Dir: dir, Log: quiet(), Queue: queue.Options{ForgetSent: true}, tidyEvery: time.Hour})
			must(t, err)
			n := 0
			for ; err == nil; n += tt.group {
				err = s.Enqueue(ctx, testMails(tt.group, tt.size)...)
			}
			n -= tt.group
			if !errors.Is(err, queue.ErrFull) {
				t.Fatalf("after %d mails: %v", n, err)
			}
			if held, err := s.Hold(ctx, queue.Filter{}); err != nil || held != n {
				t.Fatalf("%d of %d are held: %v", held, n, err)
			}
			if dropped, err := s.Drop(ctx, queue.Filter{}); err != nil || dropped != n {
				t.Fatalf("%d of %d are dropped: %v", dropped, n, err)
			}
			must(t, s.Close())
			s = openQueue(t, dir, Options{Queue: queue.Options{ForgetSent: true}, tidyEvery: time.Millisecond})
			until(t, "space is given back", func() bool { return !errors.Is(s.Enqueue(ctx, testMails(tt.group, tt.size)...), queue.ErrFull) })
			checkConsistent(t, s)
		})
	}
}

// TestDiskFullOfOthers: what others took of the disk is not ours to give back;
// all is kept, and goes on when they do.
func TestDiskFullOfOthers(t *testing.T) {
	dir := onTmpfs(t, "64m")
	s := openQueue(t, dir, Options{})
	mails := testMails(100, 10_000)
	must(t, s.Enqueue(ctx, mails...))
	ballast, err := os.Create(filepath.Join(dir, "ballast"))
	must(t, err)
	for size := 1 << 20; size > 0; size /= 2 {
		for err = nil; err == nil; {
			_, err = ballast.Write(make([]byte, size))
		}
	}
	must(t, ballast.Close())
	for err = nil; err == nil; { // until what is left inside the files is used up
		err = s.SetMark(ctx, "a", strings.Repeat("b", 1+rand.IntN(10_000)))
	}
	if !db.IsDiskFull(err) || errors.Is(err, queue.ErrFull) {
		t.Fatalf("SetMark: %v", err)
	}
	if err := s.Enqueue(ctx, testMail(10)); !errors.Is(err, queue.ErrFull) {
		t.Fatalf("Enqueue: %v", err)
	}
	must(t, os.Remove(ballast.Name()))
	must(t, s.Enqueue(ctx, testMail(10)))
	if claims := claimAll(t, s); len(claims) != len(mails)+1 {
		t.Fatalf("%d claims", len(claims))
	}
	readAll(t, s, mails)
	checkConsistent(t, s)
}

func TestMinFree(t *testing.T) {
	s := openQueue(t, t.TempDir(), Options{Queue: queue.Options{MinFree: 1 << 60}})
	for _, size := range []int{10, spoolAbove + 1} {
		if err := s.Enqueue(ctx, testMail(size)); !errors.Is(err, queue.ErrFull) {
			t.Fatalf("Enqueue: %v", err)
		}
		b := testMail(size)
		b.BounceOf = "other"
		must(t, s.Enqueue(ctx, b))
	}
	must(t, s.SetMark(ctx, "a", "b"))
}

// TestReadOnly: a file system that became read-only, as ext4 does after errors.
func TestReadOnly(t *testing.T) {
	dir := onTmpfs(t, "64m")
	s, err := OpenQueue(Options{Dir: dir, Log: quiet()})
	must(t, err)
	m := testMail(100)
	must(t, s.Enqueue(ctx, m))
	must(t, s.Close())
	remount(t, dir, true)
	if _, err := OpenQueue(Options{Dir: dir, Log: quiet()}); !errors.Is(err, syscall.EROFS) {
		t.Fatalf("Open: %v", err)
	}
	remount(t, dir, false)
	s = openQueue(t, dir, Options{})
	if claims := claimAll(t, s); len(claims) != 1 {
		t.Fatalf("%d claims", len(claims))
	}
}

// TestOneOpCannotFailAnother: ops that share a transaction have each their own end.
func TestOneOpCannotFailAnother(t *testing.T) {
	dir := t.TempDir()
	s, err := OpenQueue(Options{Dir: dir, Log: quiet()})
	must(t, err)
	bad := errors.New("bad")
	add := func(name string, err error) op {
		return op{done: make(chan error, 1), run: func(t *tx) error {
			t.addMark(name, 1)
			return err
		}}
	}
	wrong := op{done: make(chan error, 1), run: func(t *tx) error { // whose caller does not look at t.err
		t.exec("INSERT INTO nowhere VALUES (1)")
		t.addMark("wrong", 1)
		return nil
	}}
	ops := []op{add("first", nil), add("bad", bad), wrong, add("last", nil)}
	must(t, s.submit(ctx, op{alone: func(*conn) error { // in the writer
		s.commit(ops...)
		return nil
	}}))
	must(t, s.Close())
	for i, want := range []string{"<nil>", "bad", "no such table", "<nil>"} {
		if err := <-ops[i].done; !strings.Contains(fmt.Sprint(err), want) {
			t.Errorf("op %d: %v, want %v", i, err, want)
		}
	}
	marks, err := openQueue(t, dir, Options{}).Marks(ctx, "")
	must(t, err)
	if fmt.Sprint(marks) != "map[first:1 last:1]" {
		t.Errorf("marks: %v", marks)
	}
}

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

func readAll(t *testing.T, s *Queue, mails []queue.Mail) {
	t.Helper()
	for _, m := range mails {
		raw, err := readRaw(s, m.Message.ID)
		if err != nil || string(raw) != string(m.Message.Raw) {
			t.Fatalf("%d bytes, %v", len(raw), err)
		}
	}
}
