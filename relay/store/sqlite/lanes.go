package sqlite

import (
	"math"
	"slices"

	"github.com/smtp2rest/smtp2rest/relay/queue"
)

// turn is the lane that was served last. It is not stored: after a restart
// the round begins anew.
type turn struct{ turn, lane string }

// due is a recipient that is ready, by its key.
type due struct {
	turn
	seq, n int64
}

// choose picks up to r.Max ready recipients, one from each lane in turn.
func (t *tx) choose(r queue.ClaimRequest) ([]due, error) {
	left := make(map[string]int, len(r.Limits)) // what a domain may still get
	for domain, n := range r.Limits {
		left["="+domain] = n
	}
	over, err := t.seqs(r.PassOver)
	if err != nil {
		return nil, err
	}
	// So many lanes may have nothing but what is passed over.
	lanes, err := t.lanes(r.Max+len(over), left)
	if err != nil {
		return nil, err
	}
	if r.Latest {
		if lanes, err = t.latestFirst(lanes, over, left); err != nil {
			return nil, err
		}
	}
	var taken []due
	for len(lanes) > 0 && len(taken) < r.Max {
		share := (r.Max-len(taken))/len(lanes) + 1
		going := lanes[:0]
		for _, l := range lanes {
			n, limited := left[l.turn.turn]
			if len(taken) == r.Max || limited && n <= 0 {
				continue
			}
			d, ok, err := t.next(&l, share, over)
			if err != nil {
				return nil, err
			}
			if !ok {
				continue
			}
			if limited {
				left[l.turn.turn] = n - 1
			}
			taken = append(taken, d)
			if !r.Latest || len(taken) > 1 {
				t.turn = l.turn
			}
			going = append(going, l)
		}
		lanes = going
	}
	return taken, nil
}

// lane is one lane that has something ready, and what of it was read.
type lane struct {
	turn
	seq, n int64 // the last that was read
	read   []due
	end    bool
}

// lanes lists up to limit lanes that have something ready, beginning after
// the one that was served last. Each costs one step down an index, and so
// does passing over all lanes of a domain that has nothing left.
func (t *tx) lanes(limit int, left map[string]int) ([]lane, error) {
	var found []lane
	start := t.turn
	at, wrapped := start, false
	// SQLite begins a comparison of rows at the first that is equal and steps
	// from there; with a number above all mails that is behind the whole lane.
	const after = "SELECT turn, lane FROM recipients WHERE state = 0 AND (turn, lane, mail) > (?, ?, 9223372036854775807) ORDER BY turn, lane LIMIT 1"
	q, args := after, []any{at.turn, at.lane}
	for len(found) < limit {
		r, err := t.One(q, args...)
		if err != nil {
			return nil, err
		}
		if r == nil && wrapped {
			return found, nil
		}
		if r == nil { // the first lane of all is the one after the last
			q, args, wrapped = "SELECT turn, lane FROM recipients WHERE state = 0 ORDER BY turn, lane LIMIT 1", nil, true
			continue
		}
		at = turn{r.Text(0), r.Text(1)}
		if wrapped && (at.turn > start.turn || at.turn == start.turn && at.lane > start.lane) {
			return found, nil // once around
		}
		q, args = after, []any{at.turn, at.lane}
		if n, limited := left[at.turn]; limited && n <= 0 {
			q, args = "SELECT turn, lane FROM recipients WHERE state = 0 AND turn > ? ORDER BY turn, lane LIMIT 1", []any{at.turn}
			continue
		}
		found = append(found, lane{turn: at, seq: -1})
	}
	return found, nil
}

// latestBack bounds how far back the mail that came last is looked for.
const latestBack = 2000

// latestFirst puts the lane of the mail that came last before the others, if
// there is one none of whose mail is passed over: what is wrong with that is
// often wrong with all of its sender's.
func (t *tx) latestFirst(lanes []lane, over map[int64]bool, left map[string]int) ([]lane, error) {
	var latest, second *turn
	passed := map[turn]bool{}
	for seq := range over {
		r, err := t.One("SELECT turn, lane FROM recipients WHERE mail = ? LIMIT 1", seq)
		if err != nil {
			return nil, err
		}
		if r != nil {
			passed[turn{r.Text(0), r.Text(1)}] = true
		}
	}
	err := t.Each(func(r row) error {
		at := turn{r.Text(1), r.Text(2)}
		n, limited := left[at.turn]
		switch {
		case latest != nil || over[r.Int(0)] || limited && n <= 0:
		case !passed[at]:
			latest = &at
		case second == nil:
			second = &at
		}
		return nil
	}, "SELECT mail, turn, lane FROM recipients WHERE mail > (SELECT max(seq) FROM mails) - ? AND state = 0 ORDER BY mail DESC", latestBack)
	if latest == nil {
		latest = second
	}
	if err != nil || latest == nil {
		return lanes, err
	}
	first := []lane{{turn: *latest, seq: -1}}
	return append(first, slices.DeleteFunc(lanes, func(l lane) bool { return l.turn == *latest })...), nil
}

// seqs are the numbers of the mails with these ids that are there.
func (t *tx) seqs(ids []string) (map[int64]bool, error) {
	seqs := make(map[int64]bool, len(ids))
	for _, id := range ids {
		r, err := t.One("SELECT seq FROM mails WHERE id = ?", id)
		if err != nil {
			return nil, err
		}
		if r != nil {
			seqs[r.Int(0)] = true
		}
	}
	return seqs, nil
}

// next is the oldest of a lane that was not read yet and is not passed over.
func (t *tx) next(l *lane, share int, over map[int64]bool) (due, bool, error) {
	for {
		d, ok, err := t.read(l, share)
		if err != nil || !ok || !over[d.seq] {
			return d, ok, err
		}
		l.read, l.end = nil, false
		l.seq, l.n = d.seq, math.MaxInt64 // go on behind the whole mail
	}
}

// read is the oldest of a lane that was not read yet. It reads share at once.
func (t *tx) read(l *lane, share int) (due, bool, error) {
	if len(l.read) == 0 && !l.end {
		err := t.Each(func(r row) error {
			l.seq, l.n = r.Int(0), r.Int(1)
			l.read = append(l.read, due{turn: l.turn, seq: l.seq, n: l.n})
			return nil
		}, `SELECT mail, n FROM recipients WHERE state = 0 AND turn = ? AND lane = ? AND (mail, n) > (?, ?)
			ORDER BY mail, n LIMIT ?`, l.turn.turn, l.turn.lane, l.seq, l.n, share)
		if err != nil {
			return due{}, false, err
		}
		l.end = len(l.read) < share
	}
	if len(l.read) == 0 {
		return due{}, false, nil
	}
	d := l.read[0]
	l.read = l.read[1:]
	return d, true, nil
}
