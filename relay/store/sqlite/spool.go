package sqlite

import (
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"hash"
	"hash/crc32"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/smtp2rest/smtp2rest/relay"
	"github.com/smtp2rest/smtp2rest/relay/queue"
	"github.com/smtp2rest/smtp2rest/relay/store/internal/db"
	"github.com/smtp2rest/smtp2rest/relay/store/internal/stored"
)

// spoolDir is where bodies above spoolAbove are, one file each.
const spoolDir = "spool"

// spoolAbove: larger bodies do not go through the database, where they would
// be written twice and hold up the commits of small mail meanwhile. See
// docs/internals/storage.md for the measurement.
const spoolAbove = 128 << 10

// spoolFS is what the spool needs of a file system, so that tests can make it
// fail. Names are paths.
type spoolFS interface {
	// Create makes a file that must not be there yet, with mode 0600.
	Create(name string) (spoolFile, error)
	Open(name string) (io.ReadCloser, error)
	Remove(name string) error
	// Move gives a file another name, in a directory that it makes.
	Move(from, to string) error
	SyncDir(name string) error
	// Names lists a directory, n at a time, into f.
	Names(dir string, f func(name string) error) error
}

type spoolFile interface {
	io.Writer
	Sync() error
	Close() error
}

// spool keeps bodies as files. A file is complete and synced, and so is its name,
// before a row refers to it; the row is gone before the file is. What a
// crash leaves over is swept at the next start.
type spool struct {
	dir string
	fs  spoolFS
}

func (s spool) path(name string) string { return filepath.Join(s.dir, name) }

// put stores a body and returns its name, which begins with the number of the
// latest mail: see sweepSpool.
func (s spool) put(seq int64, raw []byte) (string, error) {
	name := strconv.FormatInt(seq, 10) + "-" + rand.Text()
	f, err := s.fs.Create(s.path(name))
	if err != nil {
		return "", err
	}
	_, err = f.Write(raw)
	if err == nil {
		err = f.Sync()
	}
	err = errors.Join(err, f.Close())
	if err == nil {
		err = s.fs.SyncDir(s.dir)
	}
	if err != nil {
		return "", errors.Join(err, s.remove(name))
	}
	return name, nil
}

func (s spool) open(name string) (io.ReadCloser, error) { return s.fs.Open(s.path(name)) }

// remove is not synced: a file that comes back after a crash is swept.
func (s spool) remove(name string) error {
	err := s.fs.Remove(s.path(name))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// discard removes files that no row tells of any more.
func (s *Queue) discard(names []string) {
	for _, name := range names {
		if err := s.spool.remove(name); err != nil {
			s.log.Warn("spool file could not be removed; the next start will", "file", s.spool.path(name), "err", err)
		}
	}
}

// checkMissing refuses to begin a new database beside what is left of one that
// is gone or was cut to nothing: SQLite would remove the WAL, and the sweep take
// the bodies for leftovers.
func (s *Queue) checkMissing(path string) error {
	what := "missing"
	info, err := os.Lstat(path)
	switch {
	case err == nil && info.Size() > 0:
		return nil
	case err == nil:
		what = "empty"
	case !errors.Is(err, os.ErrNotExist):
		return err
	}
	refuse := func(beside string) error {
		return fmt.Errorf("%s is %s, and %s beside it has the mail of it: put the file back, or begin with an empty queue after 'smtp2rest queue set-aside', which renames what is there and removes nothing", path, what, beside)
	}
	if log, err := os.Lstat(path + "-wal"); err == nil && log.Size() > 0 {
		return refuse(path + "-wal")
	}
	return s.spool.fs.Names(s.spool.dir, func(string) error { return refuse(s.spool.dir) })
}

// sweepSpool removes the files that no row refers to: a crash left them between a
// file and its row. But if one has a number that the database never gave, the
// database is an older one that was put back, and the files are mail that came
// after it: they are set aside. Each start uses up a number, so that they differ.
func (s *Queue) sweepSpool(c *conn) error {
	var unknown []string
	older := false
	err := s.spool.fs.Names(s.spool.dir, func(name string) error {
		r, err := c.One("SELECT 1 FROM mails WHERE spool = ? AND spool <> ''", name)
		if err != nil || r != nil {
			return err
		}
		unknown = append(unknown, name)
		digits, _, _ := strings.Cut(name, "-")
		number, err := strconv.ParseInt(digits, 10, 64)
		older = older || err == nil && number >= s.published.Load().seq
		return nil
	})
	if err != nil || len(unknown) == 0 {
		return err
	}
	if !older {
		for _, name := range unknown {
			if err := s.spool.remove(name); err != nil {
				return err
			}
		}
		s.log.Info("removed spool files that belong to no mail", "files", len(unknown))
		return nil
	}
	return s.setAside(unknown...)
}

// setAside moves files of the spool to where nothing touches them.
func (s *Queue) setAside(names ...string) error {
	dir := s.spool.dir + time.Now().UTC().Format(".unknown-20060102-150405.000")
	for _, name := range names {
		if err := s.spool.fs.Move(s.spool.path(name), filepath.Join(dir, name)); err != nil {
			return err
		}
	}
	s.log.Error("the spool has mail that the queue's database does not know: was an older database put in its place? The files are set aside and not removed", "files", len(names), "dir", dir)
	return nil
}

// osFS is the operating system's file system.
type osFS struct{}

func (osFS) Create(name string) (spoolFile, error) {
	return os.OpenFile(name, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
}

func (osFS) Open(name string) (io.ReadCloser, error) { return db.OpenFile(name, os.O_RDONLY) }
func (osFS) Remove(name string) error                { return os.Remove(name) }
func (osFS) Move(from, to string) error {
	if err := os.MkdirAll(filepath.Dir(to), 0o700); err != nil {
		return err
	}
	return os.Rename(from, to)
}

func (osFS) SyncDir(name string) error { return db.SyncDir(name) }

func (osFS) Names(dir string, f func(name string) error) error {
	switch info, err := os.Stat(dir); {
	case err != nil:
		return err
	case !info.IsDir(): // a pipe would be waited for
		return fmt.Errorf("%s is not a directory", dir)
	}
	d, err := os.Open(dir)
	if err != nil {
		return err
	}
	defer func() { _ = d.Close() }()
	for {
		names, err := d.Readdirnames(1000)
		for _, name := range names {
			if err := f(name); err != nil {
				return err
			}
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// noSpace reports whether a file could not be written for want of space, or
// of quota.
func noSpace(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) || db.IsDiskFull(err)
}

// Raw implements queue.Queue.
func (s *Queue) Raw(ctx context.Context, id string) (io.ReadCloser, error) {
	if err := s.enter(); err != nil {
		return nil, err
	}
	r, err := s.raw(ctx, id)
	if err != nil {
		s.leave()
		return nil, err
	}
	return &leaving{ReadCloser: r, leave: sync.OnceFunc(s.leave)}, nil
}

// leaving ends a call when its reader is closed.
type leaving struct {
	io.ReadCloser
	leave func()
}

func (l *leaving) Close() error {
	defer l.leave()
	return l.ReadCloser.Close()
}

func (s *Queue) raw(ctx context.Context, id string) (io.ReadCloser, error) {
	m, body, err := s.locate(ctx, id)
	switch {
	case err != nil:
		return nil, err
	case m.body == bodyTable && checksum(body) != m.bodySum:
		return nil, s.reportDamage(m)
	case m.body == bodyTable:
		return io.NopCloser(bytes.NewReader(body)), nil
	}
	f, err := s.spool.open(m.spool)
	if errors.Is(err, fs.ErrNotExist) { // it is lost, unless the mail was sent since its row was read
		if m, _, err = s.locate(ctx, id); err == nil {
			err = s.reportDamage(m)
		}
		return nil, err
	}
	if err != nil {
		return nil, fmt.Errorf("queue storage: %w", err)
	}
	return &checkedFile{ReadCloser: f, s: s, m: m, sum: crc32.New(crc32.MakeTable(crc32.Castagnoli))}, nil
}

// locate reads a mail's row, and its body if that is in the table.
func (s *Queue) locate(ctx context.Context, id string) (m mailRow, body []byte, err error) {
	whole := true
	err = s.read(ctx, func(c *conn) error {
		v, err := c.One("SELECT "+mailColumns+" FROM mails m WHERE m.id = ?", id)
		if err != nil {
			return err
		}
		if v == nil || v.Int(12) == bodyGone {
			return queue.ErrNotFound
		}
		m, err = readMail(v)
		whole = err == nil && m.intact(v.Text(6))
		if !whole || m.body != bodyTable {
			return nil
		}
		b, err := c.One("SELECT raw FROM bodies WHERE seq = ?", m.seq)
		if db.IsCorrupt(err) || err == nil && b == nil {
			whole = false
			return nil
		}
		if err == nil {
			body = b.Blob(0)
		}
		return err
	})
	if err == nil && !whole {
		err = s.reportDamage(m)
	}
	return m, body, err
}

// checkedFile gives out a spool file and ends with ErrDamaged instead of
// io.EOF when it was not what was stored.
type checkedFile struct {
	io.ReadCloser
	s    *Queue
	m    mailRow
	sum  hash.Hash32
	size int64
}

func (f *checkedFile) Read(p []byte) (int, error) {
	n, err := f.ReadCloser.Read(p)
	f.sum.Write(p[:n])
	f.size += int64(n)
	if !errors.Is(err, io.EOF) {
		return n, err
	}
	f.sum.Write([]byte{0}) // as checksum does
	if f.size != f.m.Size || int64(f.sum.Sum32()) != f.m.bodySum {
		return n, f.s.reportDamage(f.m)
	}
	return n, io.EOF
}

// reportDamage marks a mail as damaged and returns ErrDamaged. It is part of
// a call that has entered, and not bound by that call's context: the damage is
// there whether or not the caller goes on.
func (s *Queue) reportDamage(m mailRow) error {
	err := s.do(context.Background(), func(t *tx) error {
		now := max(s.clock.Load(), stored.Millis(m.Message.ReceivedAt)) // see the contract: no clock of our own
		t.damage(m.seq, m.Message.ID, stored.Time(now))
		return nil
	})
	return errors.Join(fmt.Errorf("mail %s: %w", m.Message.ID, queue.ErrDamaged), err)
}

// damage marks a mail as damaged and gives up its waiting recipients, so that
// its sender learns of it and nothing wrong is ever sent.
func (t *tx) damage(seq int64, id string, now time.Time) {
	type recipient struct {
		n, state int64
		bounced  bool
	}
	var waiting []recipient
	t.each(func(r row) {
		waiting = append(waiting, recipient{r.Int(0), r.Int(1), r.Bool(2)})
	}, "SELECT n, state, bounced FROM recipients WHERE mail = ? AND state IN (0, 1)", seq)
	t.countFailed(seq, -1)
	t.exec("UPDATE mails SET damaged = 1 WHERE seq = ?", seq)
	for _, r := range waiting {
		t.counts.move(r.state, failed)
		if !r.bounced {
			t.counts.unbounced++
		}
		t.exec("UPDATE recipients SET state = 5, ended = ? WHERE mail = ? AND n = ?", stored.Millis(now), seq, r.n)
		t.counts.fence++
		t.insertAttempt(seq, r.n, t.counts.fence, queue.Attempt{Started: now, NotAnAttempt: true, Outcome: relay.Outcome{Detail: queue.ErrDamaged.Error()}})
	}
	t.countFailed(seq, 1)
	t.after(func() {
		t.s.log.Error("a stored mail is damaged and cannot be sent; its sender will be told", "id", id, "recipients", len(waiting))
	})
}
