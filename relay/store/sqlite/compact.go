package sqlite

import (
	"cmp"
	"fmt"
)

const (
	// sparse: a segment is given up when this part of its mails is left, or
	// less, so that moving them costs little for the space that it gives back.
	sparse = 4
	// moveMails and moveBytes bound one step of moving them.
	moveMails = 256
	moveBytes = 1 << 20
)

// compact takes one step towards giving up a segment that few mails hold: they
// move to the table, and with the last of them the file goes. It says whether
// there was anything to do.
func (w *writer) compact(quiet bool) (bool, error) {
	if w.segment != nil && quiet {
		r, err := w.conn.One("SELECT 1 FROM segments WHERE id = ? AND live * ? > mails", w.segment.id, sparse)
		if err != nil {
			return false, err
		}
		if r == nil {
			w.retire()
		}
	}
	r, err := w.conn.One("SELECT id, first, last FROM segments WHERE live * ? <= mails AND id <> ? ORDER BY id LIMIT 1", sparse, w.current())
	if err != nil || r == nil {
		return false, err
	}
	var g group
	g.add(op{run: func(t *tx) error { return t.moveBodies(r.Int(0), r.Int(1), r.Int(2)) }})
	err = w.transact(&g, true)
	if err != nil || g.results[0].err != nil {
		return false, fmt.Errorf("segment %d: %w", r.Int(0), cmp.Or(err, g.results[0].err))
	}
	w.s.discard(g.results[0].files)
	return true, nil
}

// moveBodies moves some of the bodies in a segment, of the mails from first to
// last, to the table. A body that is damaged moves as it is, with its checksum.
func (t *tx) moveBodies(id, first, last int64) error {
	type body struct{ seq, place, size int64 }
	var bodies []body
	bytes := int64(0)
	err := t.Each(func(r row) error {
		if bytes < moveBytes {
			bodies = append(bodies, body{r.Int(0), r.Int(1), r.Int(2)})
			bytes += r.Int(2)
		}
		return nil
	}, "SELECT seq, place, size FROM mails WHERE seq >= ? AND seq <= ? AND place >= ? AND place < ? ORDER BY seq LIMIT ?",
		first, last, place(id, 0), place(id+1, 0), moveMails)
	if err != nil {
		return err
	}
	raws := make([][]byte, len(bodies))
	for i, b := range bodies {
		if raws[i], err = t.s.spool.readAt(b.place, b.size); err != nil {
			return err
		}
	}
	for i, b := range bodies {
		if _, err := t.change("INSERT INTO bodies VALUES (?, ?)", b.seq, raws[i]); err != nil {
			return err
		}
		if _, err := t.change("UPDATE mails SET body = 1, place = 0 WHERE seq = ?", b.seq); err != nil {
			return err
		}
	}
	if len(bodies) == 0 {
		live, err := t.Number("SELECT live FROM segments WHERE id = ?", id)
		if err != nil {
			return err
		}
		if live > 0 {
			return fmt.Errorf("%d mails should be in it, none is", live)
		}
	}
	t.segments.remove(id, int64(len(bodies)))
	t.writes++
	return nil
}
