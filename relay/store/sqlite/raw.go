package sqlite

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"hash"
	"hash/crc32"
	"io"
	"io/fs"
	"sync"
	"time"

	"github.com/smtp2rest/smtp2rest/relay"
	"github.com/smtp2rest/smtp2rest/relay/queue"
	"github.com/smtp2rest/smtp2rest/relay/store/internal/db"
)

// Raw implements queue.Queue.
func (s *Store) Raw(ctx context.Context, id string) (io.ReadCloser, error) {
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

func (s *Store) raw(ctx context.Context, id string) (io.ReadCloser, error) {
	m, body, err := s.locate(ctx, id)
	for {
		if err != nil {
			return nil, err
		}
		var r io.ReadCloser
		r, err = s.content(m, body)
		switch {
		case err == nil || errors.Is(err, queue.ErrDamaged):
			return r, err
		case !errors.Is(err, fs.ErrNotExist):
			return nil, fmt.Errorf("queue storage: %w", err)
		}
		// No such file any more: either the mail's body moved or went since
		// its row was read, or the file is lost.
		before := m
		m, body, err = s.locate(ctx, id)
		if err == nil && m.body == before.body {
			return nil, s.reportDamage(m)
		}
	}
}

// locate reads a mail's row, and its body if that is in the table.
func (s *Store) locate(ctx context.Context, id string) (m stored, body []byte, err error) {
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

// content is a reader of a body that was located.
func (s *Store) content(m stored, body []byte) (r io.ReadCloser, err error) {
	switch m.body {
	case bodySpool:
		f, err := s.spool.open(m.spool)
		if err != nil {
			return nil, err
		}
		return &checkedFile{ReadCloser: f, s: s, m: m, sum: crc32.New(crc32.MakeTable(crc32.Castagnoli))}, nil
	case bodySegment:
		if body, err = s.spool.readAt(m.place, m.Size); err != nil {
			return nil, err
		}
	}
	if checksum(body) != m.bodySum {
		return nil, s.reportDamage(m)
	}
	return io.NopCloser(bytes.NewReader(body)), nil
}

// checkedFile gives out a spool file and ends with ErrDamaged instead of
// io.EOF when it was not what was stored.
type checkedFile struct {
	io.ReadCloser
	s    *Store
	m    stored
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
func (s *Store) reportDamage(m stored) error {
	err := s.do(context.Background(), func(t *tx) error {
		now := max(s.clock.Load(), millis(m.Message.ReceivedAt)) // see the contract: no clock of our own
		return t.damage(m.seq, m.Message.ID, fromMillis(now))
	})
	return errors.Join(fmt.Errorf("mail %s: %w", m.Message.ID, queue.ErrDamaged), err)
}

// damage marks a mail as damaged and gives up its waiting recipients, so that
// its sender learns of it and nothing wrong is ever sent.
func (t *tx) damage(seq int64, id string, now time.Time) error {
	var waiting []due
	from := map[due]int64{}
	bounced := map[due]bool{}
	err := t.Each(func(r row) error {
		d := due{seq: seq, n: r.Int(0)}
		waiting = append(waiting, d)
		from[d], bounced[d] = r.Int(1), r.Bool(2)
		return nil
	}, "SELECT n, state, bounced FROM recipients WHERE mail = ? AND state IN (0, 1)", seq)
	if err != nil {
		return err
	}
	if err := t.countFailed(seq, -1); err != nil {
		return err
	}
	if _, err := t.change("UPDATE mails SET damaged = 1 WHERE seq = ?", seq); err != nil {
		return err
	}
	for _, d := range waiting {
		t.counts.move(from[d], failed)
		if !bounced[d] {
			t.counts.unbounced++
		}
		if _, err := t.change("UPDATE recipients SET state = 5, ended = ? WHERE mail = ? AND n = ?", millis(now), seq, d.n); err != nil {
			return err
		}
		t.counts.fence++
		a := queue.Attempt{Started: now, NotAnAttempt: true, Outcome: relay.Outcome{Detail: queue.ErrDamaged.Error()}}
		if err := t.insertAttempt(seq, d.n, t.counts.fence, a); err != nil {
			return err
		}
	}
	t.s.log.Error("a stored mail is damaged and cannot be sent; its sender will be told", "id", id, "recipients", len(waiting))
	return t.countFailed(seq, 1)
}
