package sqlite

import (
	"bufio"
	"errors"
	"io"
	"strconv"
	"strings"
	"time"
)

// segmentSize is when a segment is full. The last group may go beyond it.
const segmentSize = 32 << 20

// segmentPrefix begins the names of segments in the spool. The names of other
// files there are capital letters and digits.
const segmentPrefix = "segment-"

func segmentName(id int64) string { return segmentPrefix + strconv.FormatInt(id, 10) }

// segmentID is the number in a segment's name.
func segmentID(name string) (int64, bool) {
	digits, ok := strings.CutPrefix(name, segmentPrefix)
	id, err := strconv.ParseInt(digits, 10, 32)
	return id, ok && err == nil
}

// place is where a body begins: a segment's number, and an offset in its file.
// It is never 0 because segments are numbered from 1.
func place(segment, offset int64) int64 { return segment<<32 | offset }

func segmentOf(place int64) int64 { return place >> 32 }
func offsetOf(place int64) int64  { return place & (1<<32 - 1) }

// segment is the file that takes the mails of big groups, one after the
// other; portion.go says how. It belongs to the writer, and to the goroutine
// that appends while there is one. One that failed, or that another process
// began, is never written to again: after an fsync that failed nobody knows
// what of the file is on the disk.
type segment struct {
	id   int64
	file spoolFile // nil until the first append
	buf  *bufio.Writer
	size int64
	told bool // somebody was answered for what is in it
}

// appendMails begins to make a group's mails durable in a segment, and to answer
// the ops when they are. Their rows can be stored meanwhile. The result must
// be waited for.
func (w *writer) appendMails(ops []op) (portion, chan error) {
	if w.segment != nil && w.segment.size >= w.s.opts.segmentSize {
		w.retire()
	}
	if w.segment == nil {
		w.lastSegment++
		w.segment = &segment{id: w.lastSegment}
	}
	g := w.segment
	p := portion{first: w.counts.seq + 1, begin: place(g.id, g.size)}
	head := portionHead{segment: g.id, first: p.first}
	g.size += portionHeadSize
	for _, o := range ops {
		for i := range o.parcels {
			x := &o.parcels[i]
			p.parcels = append(p.parcels, x)
			g.size += int64(len(x.record))
			if x.inSegment() {
				x.place = place(g.id, g.size)
				g.size += x.Size
			}
		}
	}
	p.end = place(g.id, g.size)
	head.mails, head.length = len(p.parcels), p.end-p.begin-portionHeadSize
	begun := time.Now()
	done := make(chan error, 1)
	go func() {
		err := g.append(w.s.spool, head, p.parcels)
		if err == nil {
			w.s.metrics.committed(len(ops), time.Since(begun))
			for _, o := range ops {
				o.done <- result{stored: true, logged: true}
			}
		}
		done <- err
	}()
	return p, done
}

// append makes mails durable, and before the first of them the file's name.
func (g *segment) append(s spool, head portionHead, parcels []*parcel) error {
	made := g.file == nil
	if made {
		f, err := s.fs.Create(s.path(segmentName(g.id)))
		if err != nil {
			return err
		}
		g.file, g.buf = f, bufio.NewWriterSize(f, 256<<10)
	}
	if err := writePortion(g.buf, head, parcels); err != nil {
		return err
	}
	if err := g.buf.Flush(); err != nil {
		return err
	}
	if err := g.file.Sync(); err != nil || !made {
		return err
	}
	return s.fs.SyncDir(s.dir)
}

// void ends the segment that could not take a portion, so that the next start
// does not take what of it is there for mail: its callers may be refused yet.
func (w *writer) void(p portion) {
	g := w.segment
	if g.file != nil {
		if err := errors.Join(g.file.Truncate(offsetOf(p.begin)), g.file.Sync()); err != nil {
			w.s.log.Warn("a segment cannot be cut; after a crash mail in it may come up that was refused", "file", w.s.spool.path(segmentName(g.id)), "err", err)
		}
	}
	w.retire()
	w.passed = place(g.id+1, 0)
	for _, x := range p.parcels {
		x.place = 0
	}
}

// retire ends the current segment; the next is begun when one is needed.
func (w *writer) retire() {
	g := w.segment
	if g == nil {
		return
	}
	w.segment = nil
	if g.file == nil {
		return
	}
	_ = g.file.Close() // all that counts was synced
	if !g.told {
		w.s.discard([]string{segmentName(g.id)})
	}
}

// current is the number of the segment that is written to, or 0.
func (w *writer) current() int64 {
	if w.segment == nil {
		return 0
	}
	return w.segment.id
}

// segmentChanges is what a transaction changes in the segments.
type segmentChanges struct {
	current     int64 // where mails are added
	added       int64 // how many
	first, last int64 // of those
	removed     map[int64]int64
}

func (c *segmentChanges) add(seq int64) {
	if c.added == 0 {
		c.first = seq
	}
	c.added++
	c.last = seq
}

func (c *segmentChanges) remove(segment, mails int64) {
	if c.removed == nil {
		c.removed = map[int64]int64{}
	}
	c.removed[segment] += mails
}

// saveSegments stores the changes. It returns the files of segments that have
// nothing any more, which go after the commit; the one that is written to stays.
func (t *tx) saveSegments(current int64) ([]string, error) {
	if c := t.segments; c.added > 0 {
		_, err := t.Exec(`INSERT INTO segments VALUES (?1, ?2, ?2, ?3, ?4) ON CONFLICT (id) DO UPDATE
			SET live = live + excluded.live, mails = mails + excluded.mails, last = excluded.last`, c.current, c.added, c.first, c.last)
		if err != nil {
			return nil, err
		}
	}
	var files []string
	for id, n := range t.segments.removed {
		if _, err := t.Exec("UPDATE segments SET live = live - ? WHERE id = ?", n, id); err != nil {
			return nil, err
		}
		if id == current {
			continue
		}
		deleted, err := t.Exec("DELETE FROM segments WHERE id = ? AND live = 0", id)
		if err != nil {
			return nil, err
		}
		if deleted > 0 {
			files = append(files, segmentName(id))
		}
	}
	return files, nil
}

// readAt reads a body from its segment. What a file that is too short does not
// have is left zero, for the checksum to find.
func (s spool) readAt(place, size int64) ([]byte, error) {
	f, err := s.open(segmentName(segmentOf(place)))
	if err != nil {
		return nil, err
	}
	body := make([]byte, size)
	_, err = f.ReadAt(body, offsetOf(place))
	if errors.Is(err, io.EOF) {
		err = nil
	}
	return body, errors.Join(err, f.Close())
}
