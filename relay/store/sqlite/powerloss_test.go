package sqlite

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/smtp2rest/smtp2rest/relay"
	"github.com/smtp2rest/smtp2rest/relay/queue"
	"github.com/smtp2rest/smtp2rest/relay/store/internal/stored"
	"github.com/smtp2rest/smtp2rest/test/harness"
)

// life is what a test knows of one mail, in numbers of events on the disk.
type life struct {
	mail     queue.Mail
	acked    int // Enqueue returned
	claimed  int // Claim returned
	settling int // Settle as Done began,
	settled  int // and returned
}

// TestPowerLoss runs a queue, cuts the power at many moments of its past, and
// looks whether everything that had been acknowledged is there.
func TestPowerLoss(t *testing.T) {
	for _, failing := range []bool{false, true} {
		for _, forget := range []bool{false, true} {
			t.Run(fmt.Sprintf("syncs fail %v, sent mail is forgotten %v", failing, forget), func(t *testing.T) { testPowerLoss(t, failing, forget) })
		}
	}
}

func testPowerLoss(t *testing.T, failing, forget bool) {
	disk := &faultDisk{}
	name := fmt.Sprintf("powerloss-%v-%v", failing, forget)
	registerVFS(name, disk)
	fs := newMemFS(disk)
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	chance := rand.New(rand.NewPCG(seed, 0))
	s := openQueue(t, t.TempDir(), Options{vfs: name, spool: fs, rewrite: disk.Rewrite,
		tidyEvery: time.Millisecond, Queue: queue.Options{ForgetSent: forget}})
	start := disk.Now()
	if failing {
		fs.setFail(func(op, _ string) error {
			if op == "sync" && rand.IntN(5) == 0 {
				return syscall.EIO
			}
			return nil
		})
		disk.Fail(func(op diskOp, _ string) int32 {
			if op == opSync && rand.IntN(25) == 0 {
				return failSync
			}
			return 0
		})
	}
	lives := workload(t, s, disk, chance, failing)
	disk.Fail(nil)
	fs.setFail(nil)
	for range harness.Scaled(10, 40) {
		n := start + chance.IntN(disk.Now()-start+1)
		if chance.IntN(2) == 0 { // at the very moment at which a caller was answered
			n = lives[chance.IntN(len(lives))].acked
		}
		dir := t.TempDir()
		must(t, os.Mkdir(filepath.Join(dir, spoolDir), 0o700))
		must(t, disk.PowerLoss(n, dir, chance))
		must(t, fs.powerLoss(n, filepath.Join(dir, spoolDir), chance))
		verify(t, dir, n, lives, forget)
	}
}

func someMail(now time.Time, chance *rand.Rand) queue.Mail {
	m := queue.NewMail(relay.Message{ID: relay.NewID(now), From: "a@b", Recipients: []string{"x@y"}, ReceivedAt: now})
	m.Message.Raw = bytes.Repeat([]byte(m.Message.ID), 1+chance.IntN(300))
	if chance.IntN(20) == 0 {
		m.Message.Raw = bytes.Repeat([]byte(m.Message.ID), spoolAbove/20+1)
	}
	return m
}

// workload is some life for a queue, one call at a time.
func workload(t *testing.T, s *Queue, disk *faultDisk, chance *rand.Rand, failing bool) []*life {
	ctx, now := context.Background(), time.Now()
	var lives []*life
	byID := map[string]*life{}
	var claims []queue.Claim
	ok := func(err error) bool {
		if err != nil && !failing {
			t.Fatal(err)
		}
		if errors.Is(err, queue.ErrFull) {
			t.Fatalf("a failed sync is called full: %v", err)
		}
		return err == nil
	}
	for range 250 {
		now = now.Add(time.Second)
		switch chance.IntN(6) {
		case 0, 1:
			mails := make([]queue.Mail, 1+chance.IntN(2)*chance.IntN(6))
			for i := range mails {
				mails[i] = someMail(now, chance)
			}
			if ok(s.Enqueue(ctx, mails...)) {
				for _, m := range mails {
					l := &life{mail: m, acked: disk.Now()}
					lives, byID[m.Message.ID] = append(lives, l), l
				}
			}
		case 2:
			got, err := s.Claim(ctx, queue.ClaimRequest{Now: now, Max: 6})
			if ok(err) {
				for _, c := range got {
					if l := byID[c.Token.Mail]; l != nil {
						l.claimed = disk.Now()
					}
				}
				claims = append(claims, got...)
			}
		default:
			if len(claims) == 0 {
				continue
			}
			c := claims[0]
			l := byID[c.Token.Mail]
			if l == nil { // its Enqueue failed, and it is there all the same
				claims = claims[1:]
				continue
			}
			if l.settling == 0 {
				l.settling = disk.Now()
			}
			if ok(s.Settle(ctx, queue.Settlement{Token: c.Token, Result: queue.Done, At: now})) {
				l.settled, claims = disk.Now(), claims[1:]
			}
		}
	}
	if len(lives) < 20 {
		t.Fatalf("only %d mails were stored", len(lives))
	}
	return lives
}

// verify opens what a loss of power after n events left and looks at it.
func verify(t *testing.T, dir string, n int, lives []*life, forget bool) {
	t.Helper()
	s, err := OpenQueue(Options{Dir: dir, Log: quiet(), Queue: queue.Options{ForgetSent: forget}})
	if err != nil {
		t.Fatalf("after %d events: %v", n, err)
	}
	defer func() { must(t, s.Close()) }()
	for _, l := range lives {
		if l.acked <= n {
			verifyOne(t, s, n, l, forget)
		}
	}
	verifyOrder(t, s, n, lives)
	if aside := filesIn(t, dir, "spool.unknown-*"); len(aside) > 0 {
		t.Fatalf("after %d events: the database is taken for an older one", n)
	}
	checkConsistent(t, s)
}

func verifyOne(t *testing.T, s *Queue, n int, l *life, forget bool) {
	t.Helper()
	settling, settled := l.settling > 0 && l.settling <= n, l.settled > 0 && l.settled <= n
	m, err := s.Get(ctx, l.mail.Message.ID)
	gone := errors.Is(err, queue.ErrNotFound)
	if forget && settled && !gone {
		t.Fatalf("after %d events: a mail sent and forgotten at %d is there again: %v", n, l.settled, err)
	}
	if gone && forget && settling {
		return
	}
	if err != nil {
		t.Fatalf("after %d events: a mail acknowledged at %d is lost: %v", n, l.acked, err)
	}
	r := m.Recipients[0]
	if settled && r.State != queue.Sent {
		t.Fatalf("after %d events: %s, sent at %d", n, r.State, l.settled)
	}
	if l.claimed > 0 && l.claimed <= n && r.Attempts == 0 {
		t.Fatalf("after %d events: no record of the attempt at %d", n, l.claimed)
	}
	if settling {
		return // may be sent, and then its content is gone
	}
	raw, err := readRaw(s, l.mail.Message.ID)
	if err != nil || !bytes.Equal(raw, l.mail.Message.Raw) {
		t.Fatalf("after %d events: content of a mail acknowledged at %d: %v", n, l.acked, err)
	}
}

// verifyOrder: what is there is in the order in which it came.
func verifyOrder(t *testing.T, s *Queue, n int, lives []*life) {
	t.Helper()
	entries, _, err := s.List(ctx, queue.Filter{Limit: stored.MaxList})
	must(t, err)
	at := map[string]int{}
	for i, e := range entries {
		at[e.Mail.Message.ID] = i + 1
	}
	last := 0
	for _, l := range lives {
		i := at[l.mail.Message.ID]
		if l.acked > n || i == 0 {
			continue
		}
		if i < last {
			t.Fatalf("after %d events: the mail acknowledged at %d comes before an earlier one", n, l.acked)
		}
		last = i
	}
}

func readRaw(s *Queue, id string) ([]byte, error) {
	r, err := s.Raw(context.Background(), id)
	if err != nil {
		return nil, err
	}
	b, err := io.ReadAll(r)
	return b, errors.Join(err, r.Close())
}

// checkConsistent compares the kept counts with the tables, and lets SQLite
// look at the whole file.
func checkConsistent(t *testing.T, s *Queue) {
	t.Helper()
	must(t, s.read(context.Background(), func(c *conn) error {
		n, err := readCounts(c)
		if err != nil {
			return err
		}
		for what, pair := range map[string]struct {
			kept  int64
			query string
		}{
			"waiting":      {n.state[ready], "SELECT count(*) FROM recipients WHERE state IN (0, 1)"},
			"claimed":      {n.state[claimed], "SELECT count(*) FROM recipients WHERE state = 2"},
			"held":         {n.state[held], "SELECT count(*) FROM recipients WHERE state = 3"},
			"sent":         {n.state[sent], "SELECT count(*) FROM recipients WHERE state = 4"},
			"failed":       {n.state[failed], "SELECT count(*) FROM recipients WHERE state = 5"},
			"unbounced":    {n.unbounced, "SELECT count(*) FROM recipients WHERE state = 5 AND bounced = 0"},
			"mails":        {n.kept.mails, "SELECT count(*) FROM mails WHERE body <> 0"},
			"bytes":        {n.kept.bytes, "SELECT coalesce(sum(size), 0) FROM mails WHERE body <> 0"},
			"failed mails": {n.failed.mails, "SELECT count(*) FROM mails WHERE body <> 0 AND seq NOT IN (SELECT mail FROM recipients WHERE state < 4)"},
			"failed bytes": {n.failed.bytes, "SELECT coalesce(sum(size), 0) FROM mails WHERE body <> 0 AND seq NOT IN (SELECT mail FROM recipients WHERE state < 4)"},
			"bodies":       {0, "SELECT count(*) FROM bodies WHERE seq NOT IN (SELECT seq FROM mails WHERE body = 1)"},
			"bodiless":     {0, "SELECT count(*) FROM mails WHERE body = 1 AND seq NOT IN (SELECT seq FROM bodies)"},
			"orphans":      {0, "SELECT count(*) FROM recipients WHERE mail NOT IN (SELECT seq FROM mails)"},
			"attempts":     {0, "SELECT count(*) FROM attempts WHERE (mail, n) NOT IN (SELECT mail, n FROM recipients)"},
		} {
			counted, err := c.Number(pair.query)
			if err != nil {
				return err
			}
			if counted != pair.kept {
				t.Errorf("%s: %d are counted, %d are there", what, pair.kept, counted)
			}
		}
		r, err := c.One("PRAGMA integrity_check")
		if err == nil && r.Text(0) != "ok" {
			t.Errorf("integrity_check: %s", r.Text(0))
		}
		return err
	}))
}

// TestPowerLossInRepair cuts the power at every moment around a sync of the
// WAL that failed while mail was in it.
func TestPowerLossInRepair(t *testing.T) {
	for name, f := range map[string]func(s *Queue) error{
		"new-mail": func(s *Queue) error { return s.Enqueue(ctx, testMail(10)) },
		"old-mail": func(s *Queue) error { // in pages that are in the WAL for nothing else
			_, err := s.Hold(ctx, queue.Filter{})
			return err
		},
	} {
		t.Run(name, func(t *testing.T) { testPowerLossInRepair(t, "powerloss-repair-"+name, f) })
	}
}

func testPowerLossInRepair(t *testing.T, vfs string, change func(s *Queue) error) {
	disk := &faultDisk{}
	registerVFS(vfs, disk)
	fs := newMemFS(disk)
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	chance := rand.New(rand.NewPCG(seed, 0))
	o := Options{Dir: t.TempDir(), Log: quiet(), vfs: vfs, spool: fs, rewrite: disk.Rewrite, tidyEvery: time.Hour}
	s, err := OpenQueue(o)
	must(t, err)
	var lives []*life
	enqueue := func() {
		mails := testMails(4, 500)
		must(t, s.Enqueue(ctx, mails...))
		for _, m := range mails {
			lives = append(lives, &life{mail: m, acked: disk.Now()})
		}
	}
	for range 20 {
		enqueue()
	}
	must(t, s.Close()) // the log is empty then
	s = openQueue(t, o.Dir, o)
	start := disk.Now()
	disk.Fail(func(op diskOp, file string) int32 {
		if op == opSync && strings.HasSuffix(file, "-wal") {
			return failSync
		}
		return 0
	})
	if err := change(s); err == nil {
		t.Fatal("it worked")
	}
	disk.Fail(nil)
	enqueue() // no start may put the refused mail before these
	must(t, s.SetMark(ctx, "a", "d"))
	for n := start; n <= disk.Now(); n++ {
		for range harness.Scaled(1, 5) {
			dir := t.TempDir()
			must(t, os.Mkdir(filepath.Join(dir, spoolDir), 0o700))
			must(t, disk.PowerLoss(n, dir, chance))
			must(t, fs.powerLoss(n, filepath.Join(dir, spoolDir), chance))
			verify(t, dir, n, lives, false)
		}
	}
}

// TestPowerLossAfterACrash: a sync of the WAL failed and the process crashed. What
// the next process stores is not lost with what the sync did not write.
func TestPowerLossAfterACrash(t *testing.T) {
	disk := &faultDisk{}
	registerVFS("powerloss-crashed", disk)
	registerVFS("powerloss-again", disk)
	chance := rand.New(rand.NewPCG(1, 2))
	o := Options{Dir: t.TempDir(), Log: quiet(), vfs: "powerloss-crashed", rewrite: disk.Rewrite, tidyEvery: time.Hour}
	s := openQueue(t, o.Dir, o)
	var lives []*life
	store := func() {
		m := testMail(2000)
		must(t, s.Enqueue(ctx, m))
		lives = append(lives, &life{mail: m, acked: disk.Now()})
	}
	store()
	disk.Fail(func(op diskOp, _ string) int32 {
		if op == opSync {
			return failSync
		}
		return 0
	})
	if err := s.Enqueue(ctx, testMail(2000)); err == nil {
		t.Fatal("Enqueue worked")
	}
	disk.Fail(nil)
	crashed := t.TempDir() // what the kernel has of the files, without the lock
	for _, name := range []string{QueueFile, QueueFile + "-wal"} {
		b, err := os.ReadFile(filepath.Join(o.Dir, name))
		must(t, err)
		must(t, os.WriteFile(filepath.Join(crashed, name), b, 0o600))
	}
	must(t, os.Mkdir(filepath.Join(crashed, spoolDir), 0o700))
	begin := disk.Now()
	o.vfs = "powerloss-again"
	s = openQueue(t, crashed, o)
	for range 3 {
		store()
	}
	for n := begin; n <= disk.Now(); n++ {
		for range harness.Scaled(1, 3) {
			dir := t.TempDir()
			must(t, os.Mkdir(filepath.Join(dir, spoolDir), 0o700))
			must(t, disk.PowerLoss(n, dir, chance))
			verify(t, dir, n, lives, false)
		}
	}
}
