package sqlite

import (
	"context"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/smtp2rest/smtp2rest/relay/queue"
	"github.com/smtp2rest/smtp2rest/relay/store/internal/stored"
)

// promoteAtOnce bounds how many recipients that became due one Claim makes
// ready, and so how long it can take when a whole backlog becomes due.
const promoteAtOnce = 1000

// Claim implements queue.Queue.
func (s *Queue) Claim(ctx context.Context, r queue.ClaimRequest) ([]queue.Claim, error) {
	if r.Max < 1 {
		return nil, fmt.Errorf("a claim of %d recipients", r.Max)
	}
	s.clock.Store(stored.Millis(r.Now))
	var claims []queue.Claim
	err := s.change(ctx, func(t *tx) error {
		claims = claims[:0]
		if err := t.promote(r); err != nil {
			return err
		}
		for _, d := range t.choose(r) {
			c, ok, err := t.claim(d, r)
			if err != nil {
				return err
			}
			if ok {
				claims = append(claims, c)
			}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	return claims, nil
}

// promote makes recipients of an account ready that became due. Each of its turns has a
// share of promoteAtOnce.
func (t *tx) promote(r queue.ClaimRequest) error {
	waiting, err := laterOf(t.conn, turnsOf(r.Account))
	for _, w := range waiting {
		most := promoteAtOnce/len(waiting) + 1
		if now := stored.Millis(r.Now); w.first <= now {
			t.promoteWhere("due <= ?", w.turn, now, most)
		}
		if longest := stored.Millis(r.Now.Add(r.MaxWait)); r.MaxWait > 0 && w.last > longest {
			t.promoteWhere("due > ?", w.turn, longest, most)
		}
	}
	return err
}

func (t *tx) promoteWhere(due, turn string, at int64, most int) {
	t.exec("UPDATE recipients SET state = 0 WHERE (mail, n) IN "+
		"(SELECT mail, n FROM recipients WHERE state = 1 AND turn = ? AND "+due+" ORDER BY due, mail, n LIMIT ?)", turn, at, most)
}

// waiting is when what waits in one turn is due first, and last.
type waiting struct {
	turn        string
	first, last int64
}

// laterOf returns what waits of an account. Each turn, of which there is one for each
// domain that it sends from, costs three steps down an index, and what other accounts
// have costs nothing.
func laterOf(c *conn, of span) (all []waiting, err error) {
	q, from := "SELECT turn FROM recipients WHERE state = 1 AND turn >= ? AND turn < ? ORDER BY turn LIMIT 1", of.from
	for {
		r, err := c.One(q, from, of.before)
		if err != nil || r == nil {
			return all, err
		}
		w := waiting{turn: r.Text(0)}
		r, err = c.One(`SELECT (SELECT min(due) FROM recipients WHERE state = 1 AND turn = ?1), (SELECT max(due) FROM recipients WHERE state = 1 AND turn = ?1)`, w.turn)
		if err != nil {
			return all, err
		}
		w.first, w.last = r.Int(0), r.Int(1)
		all = append(all, w)
		q, from = "SELECT turn FROM recipients WHERE state = 1 AND turn > ? AND turn < ? ORDER BY turn LIMIT 1", w.turn
	}
}

// claim records an attempt and returns it. It is false when what is stored is
// not what came: then the mail is marked damaged instead.
func (t *tx) claim(d due, r queue.ClaimRequest) (queue.Claim, bool, error) {
	v := t.one(`SELECT `+mailColumns+`, r.addr, r.sum, r.attempts, r.since, r.fence, r.settled, r.started, r.state
		FROM recipients r JOIN mails m ON m.seq = r.mail WHERE r.mail = ? AND r.n = ?`, d.seq, d.n)
	if v == nil { // a recipient without its mail
		return queue.Claim{}, false, &CorruptError{Path: t.s.path, Reason: fmt.Sprintf("mail %d is missing", d.seq)}
	}
	own := v[mailWidth:]
	if own.Int(7) != ready { // given up in this very call, because of an earlier recipient of the mail
		return queue.Claim{}, false, nil
	}
	m, err := readMail(v)
	addr, fence, settled := own.Text(0), own.Int(4), own.Int(5)
	if err != nil || !m.intact(v.Text(6)) || addressSum(m.Message.ID, int(d.n), addr) != own.Int(1) {
		t.damage(d.seq, m.Message.ID, r.Now)
		return queue.Claim{}, false, nil
	}
	c := queue.Claim{Mail: m.Mail, Addr: addr, Attempt: int(own.Int(2)) + 1, Since: stored.Time(own.Int(3)), Unknown: fence != settled}
	if c.Unknown { // the record of an attempt that was never settled
		t.insertAttempt(d.seq, d.n, fence, queue.Attempt{Started: stored.Time(own.Int(6)), Unknown: true})
		t.trimAttempts(d.seq, d.n)
	}
	t.counts.fence++
	t.counts.move(ready, claimed)
	c.Token = queue.Token{Mail: m.Message.ID, Recipient: int(d.n), Fence: t.counts.fence}
	t.exec(`UPDATE recipients SET state = 2, hold = 0, attempts = attempts + 1, started = ?, fence = ?
		WHERE mail = ? AND n = ?`, stored.Millis(r.Now), t.counts.fence, d.seq, d.n)
	return c, true, nil
}

// recoverClaims ends, at the start, what the process before this one held:
// nobody else can hold anything, because the data directory is locked.
func (s *Queue) recoverClaims() error {
	return s.first(func(t *tx) error {
		if !t.s.opts.Existing {
			t.counts.seq++ // see sweepSpool
			t.writes++
		}
		freed, err := t.conn.Exec("UPDATE recipients SET state = iif(hold, 3, 0), hold = 0 WHERE state = 2")
		if err != nil || freed == 0 {
			return err
		}
		t.writes++
		t.s.log.Warn("attempts were under way when the process ended; each may have been sent", "recipients", freed)
		heldNow, err := t.conn.Number("SELECT count(*) FROM recipients WHERE state = 3")
		t.counts.state[ready] += freed - (heldNow - t.counts.state[held])
		t.counts.state[claimed], t.counts.state[held] = 0, heldNow
		return err
	})
}

// NextDue implements queue.Queue.
func (s *Queue) NextDue(ctx context.Context, r queue.ClaimRequest) (time.Time, bool, error) {
	var at time.Time
	found := false
	err := s.read(ctx, func(c *conn) error {
		ok, err := readyWithin(c, turnsOf(r.Account), r.Limits)
		if err != nil || ok {
			at, found = r.Now, ok
			return err
		}
		all, err := laterOf(c, turnsOf(r.Account))
		for _, w := range all {
			due := stored.Time(w.first)
			if due.Before(r.Now) || r.MaxWait > 0 && stored.Time(w.last).After(r.Now.Add(r.MaxWait)) {
				due = r.Now
			}
			if !found || due.Before(at) {
				at, found = due, true
			}
		}
		return err
	})
	return at, found, err
}

// readyWithin reports whether anything of an account is ready that the limits do not stop.
func readyWithin(c *conn, of span, limits map[string]int) (bool, error) {
	q, args := "SELECT turn FROM recipients WHERE state = 0 AND turn >= ? AND turn < ? ORDER BY turn LIMIT 1", []any{of.from, of.before}
	for {
		r, err := c.One(q, args...)
		if err != nil || r == nil {
			return false, err
		}
		turn := r.Text(0)
		domain, ordinary := strings.CutPrefix(turn, of.from+"=")
		if !ordinary {
			return true, nil
		}
		if n, limited := limits[domain]; !limited || n > 0 {
			return true, nil
		}
		q, args = "SELECT turn FROM recipients WHERE state = 0 AND turn > ? AND turn < ? ORDER BY turn LIMIT 1", []any{turn, of.before}
	}
}

// turn is the lane of an account that was served last. It is not stored: after a
// restart the round begins anew.
type turn struct{ turn, lane string }

// due is a recipient that is ready, by its key.
type due struct {
	turn
	seq, n int64
}

// choose picks up to r.Max ready recipients, one from each lane in turn.
func (t *tx) choose(r queue.ClaimRequest) []due {
	left := make(map[string]int, len(r.Limits)) // what a domain may still get
	of := turnsOf(r.Account)
	for domain, n := range r.Limits {
		left[of.from+"="+domain] = n
	}
	over := t.seqs(r.PassOver)
	// So many lanes may have nothing but what is passed over.
	lanes := t.lanes(r.Account, r.Max+len(over), left)
	if r.Latest {
		lanes = t.latestFirst(of, lanes, over, left)
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
			d, ok := t.next(&l, share, over)
			if !ok {
				continue
			}
			if limited {
				left[l.turn.turn] = n - 1
			}
			taken = append(taken, d)
			if !r.Latest || len(taken) > 1 {
				t.took(r.Account, l.turn)
			}
			going = append(going, l)
		}
		lanes = going
	}
	return taken
}

// lane is one lane that has something ready, and what of it was read.
type lane struct {
	turn
	seq, n int64 // the last that was read
	read   []due
	end    bool
}

// took remembers whose lane of an account was served last.
func (t *tx) took(account string, last turn) {
	if t.turned == nil {
		t.turned = map[string]turn{}
	}
	t.turned[account] = last
}

// lastTurn is the lane of an account that was served last.
func (t *tx) lastTurn(account string) turn {
	if last, ok := t.turned[account]; ok {
		return last
	}
	if last, ok := t.s.turns[account]; ok {
		return last
	}
	return turn{turn: turnsOf(account).from}
}

// lanes lists up to limit lanes of an account that have something ready, beginning after
// the one that was served last. Each costs one step down an index, and so
// does passing over all lanes of a domain that has nothing left.
func (t *tx) lanes(account string, limit int, left map[string]int) []lane {
	var found []lane
	start, of := t.lastTurn(account), turnsOf(account)
	at, wrapped := start, false
	// SQLite begins a comparison of rows at the first that is equal and steps
	// from there; with a number above all mails that is behind the whole lane.
	const after = "SELECT turn, lane FROM recipients WHERE state = 0 AND (turn, lane, mail) > (?, ?, 9223372036854775807) AND turn < ? ORDER BY turn, lane LIMIT 1"
	q, args := after, []any{at.turn, at.lane, of.before}
	for len(found) < limit {
		r := t.one(q, args...)
		if r == nil && wrapped {
			return found
		}
		if r == nil { // the first lane of all is the one after the last
			q, args, wrapped = "SELECT turn, lane FROM recipients WHERE state = 0 AND turn >= ? AND turn < ? ORDER BY turn, lane LIMIT 1", []any{of.from, of.before}, true
			continue
		}
		at = turn{r.Text(0), r.Text(1)}
		if wrapped && (at.turn > start.turn || at.turn == start.turn && at.lane > start.lane) {
			return found // once around
		}
		q, args = after, []any{at.turn, at.lane, of.before}
		if n, limited := left[at.turn]; limited && n <= 0 {
			q, args = "SELECT turn, lane FROM recipients WHERE state = 0 AND turn > ? AND turn < ? ORDER BY turn, lane LIMIT 1", []any{at.turn, of.before}
			continue
		}
		found = append(found, lane{turn: at, seq: -1})
	}
	return found
}

// latestBack bounds how far back the mail that came last is looked for.
const latestBack = 2000

// latestFirst puts the lane of the mail that came last before the others, if
// there is one none of whose mail is passed over: what is wrong with that is
// often wrong with all of its sender's.
func (t *tx) latestFirst(of span, lanes []lane, over map[int64]bool, left map[string]int) []lane {
	var latest, second *turn
	passed := map[turn]bool{}
	for seq := range over {
		if r := t.one("SELECT turn, lane FROM recipients WHERE mail = ? LIMIT 1", seq); r != nil {
			passed[turn{r.Text(0), r.Text(1)}] = true
		}
	}
	t.each(func(r row) {
		at := turn{r.Text(1), r.Text(2)}
		n, limited := left[at.turn]
		switch {
		case latest != nil || !of.has(at.turn) || over[r.Int(0)] || limited && n <= 0:
		case !passed[at]:
			latest = &at
		case second == nil:
			second = &at
		}
	}, "SELECT mail, turn, lane FROM recipients WHERE mail > (SELECT max(seq) FROM mails) - ? AND state = 0 ORDER BY mail DESC", latestBack)
	if latest == nil {
		latest = second
	}
	if latest == nil {
		return lanes
	}
	first := []lane{{turn: *latest, seq: -1}}
	return append(first, slices.DeleteFunc(lanes, func(l lane) bool { return l.turn == *latest })...)
}

// seqs are the numbers of the mails with these ids that are there.
func (t *tx) seqs(ids []string) map[int64]bool {
	seqs := make(map[int64]bool, len(ids))
	for _, id := range ids {
		if r := t.one("SELECT seq FROM mails WHERE id = ?", id); r != nil {
			seqs[r.Int(0)] = true
		}
	}
	return seqs
}

// next is the oldest of a lane that was not read yet and is not passed over.
func (t *tx) next(l *lane, share int, over map[int64]bool) (due, bool) {
	for {
		d, ok := t.read(l, share)
		if !ok || !over[d.seq] {
			return d, ok
		}
		l.read, l.end = nil, false
		l.seq, l.n = d.seq, math.MaxInt64 // go on behind the whole mail
	}
}

// read is the oldest of a lane that was not read yet. It reads share at once.
func (t *tx) read(l *lane, share int) (due, bool) {
	if len(l.read) == 0 && !l.end {
		t.each(func(r row) {
			l.seq, l.n = r.Int(0), r.Int(1)
			l.read = append(l.read, due{turn: l.turn, seq: l.seq, n: l.n})
		}, `SELECT mail, n FROM recipients WHERE state = 0 AND turn = ? AND lane = ? AND (mail, n) > (?, ?)
			ORDER BY mail, n LIMIT ?`, l.turn.turn, l.turn.lane, l.seq, l.n, share)
		l.end = len(l.read) < share
	}
	if len(l.read) == 0 {
		return due{}, false
	}
	d := l.read[0]
	l.read = l.read[1:]
	return d, true
}
