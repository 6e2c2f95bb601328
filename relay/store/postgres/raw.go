package postgres

import (
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"sync"

	"github.com/jackc/pgx/v5"

	"github.com/smtp2rest/smtp2rest/relay/queue"
)

// Raw implements queue.Queue. The content is read at once and checked before the
// first byte is handed out, so that no transaction stays open for as long as a reader takes.
func (q *Queue) Raw(ctx context.Context, id string) (io.ReadCloser, error) {
	if err := q.enter(); err != nil {
		return nil, err
	}
	b := &body{leave: q.leave}
	kept, whole := false, false
	var received int64
	err := q.d.do(ctx, func(ctx context.Context, c *pgx.Conn) (err error) {
		b.pieces = nil
		kept, whole, received, err = b.read(ctx, c, id)
		return err
	})
	switch {
	case err == nil && !kept:
		err = queue.ErrNotFound
	case err == nil && !whole:
		err = q.damage(ctx, id, received)
	}
	if err != nil {
		q.leave()
		return nil, err
	}
	return b, nil
}

// body is the content of a mail, in pieces that are let go of as they are read.
type body struct {
	pieces [][]byte
	once   sync.Once
	leave  func()
}

// read reads all of it by one statement, and so as of one moment.
func (b *body) read(ctx context.Context, c *pgx.Conn, id string) (kept, whole bool, received int64, err error) {
	rows, err := c.Query(ctx, `SELECT m.kept, m.damaged, m.size, m.sum, m.received, b.raw FROM smtp2rest.mails m
		LEFT JOIN smtp2rest.bodies b ON b.seq = m.seq WHERE m.id = $1 ORDER BY b.part`, clean(id))
	if err != nil {
		return false, false, 0, err
	}
	defer rows.Close()
	table := crc32.MakeTable(crc32.Castagnoli)
	var damaged bool
	var size, sum, got int64
	crc := uint32(0)
	for rows.Next() {
		var raw []byte
		if err := rows.Scan(&kept, &damaged, &size, &sum, &received, &raw); err != nil {
			return false, false, 0, err
		}
		b.pieces = append(b.pieces, raw)
		got += int64(len(raw))
		crc = crc32.Update(crc, table, raw)
	}
	return kept, !damaged && got == size && int64(crc) == sum, received, rows.Err()
}

// Read implements io.Reader.
func (b *body) Read(p []byte) (int, error) {
	for len(b.pieces) > 0 && len(b.pieces[0]) == 0 {
		b.pieces = b.pieces[1:]
	}
	if len(b.pieces) == 0 {
		return 0, io.EOF
	}
	n := copy(p, b.pieces[0])
	b.pieces[0] = b.pieces[0][n:]
	return n, nil
}

// Close implements io.Closer.
func (b *body) Close() error {
	b.pieces = nil
	b.once.Do(b.leave)
	return nil
}

// damage marks a mail as damaged and returns ErrDamaged. The damage is there whether or
// not the caller goes on.
func (q *Queue) damage(ctx context.Context, id string, received int64) error {
	// See the contract: no clock of our own. The latest time that a caller gave is near enough.
	now := max(received, q.latest.Load())
	n, err := q.number(context.WithoutCancel(ctx), "SELECT smtp2rest.damage_1($1, $2, $3, $4, $5)", q.lease.owner(), partOperator, id, now, queue.ErrDamaged.Error())
	q.d.log.Error("a stored mail is damaged and cannot be sent; its sender will be told", "id", id, "recipients", n)
	return errors.Join(fmt.Errorf("mail %s: %w", id, queue.ErrDamaged), err)
}
