package sqlite

import "fmt"

// counts is what Stats needs, kept up to date by each commit instead of being
// counted. It is stored with the commit, so that it is right after a crash.
type counts struct {
	state     [failed + 1]int64 // ready counts for later too
	mails     int64             // whose content is kept
	bytes     int64
	failed    kept // the part of them that has no open recipient
	unbounced int64
	seq       int64 // the latest mail's
	fence     int64 // the latest claim's
	place     int64 // up to which the segments are in the database; see log.go
}

// kept is mails whose content is kept, and the sum of their sizes.
type kept struct{ mails, bytes int64 }

func (k *kept) add(size int64) {
	k.mails++
	k.bytes += size
}

func loadCounts(c *conn) (counts, error) {
	r, err := c.One("SELECT waiting, claimed, held, sent, failed, mails, bytes, unbounced, seq, fence, place, failed_mails, failed_bytes FROM counts")
	if err != nil || r == nil {
		return counts{}, err
	}
	n := counts{mails: r.Int(5), bytes: r.Int(6), unbounced: r.Int(7), seq: r.Int(8), fence: r.Int(9), place: r.Int(10), failed: kept{r.Int(11), r.Int(12)}}
	for i, s := range [...]int{ready, claimed, held, sent, failed} {
		n.state[s] = r.Int(i)
	}
	return n, nil
}

// rebuildCounts makes the row anew if it is missing, as it may be in a database that
// was rescued with .recover: without it every mail would be refused. What has lost
// its mail cannot be sent, and would stop the claims of all others.
func (s *Store) rebuildCounts(c *conn) error {
	r, err := c.One("SELECT 1 FROM counts")
	if err != nil || r != nil {
		return err
	}
	if s.opts.Existing {
		return fmt.Errorf("%w: its counts are missing", ErrOlder)
	}
	if err := c.Script("BEGIN IMMEDIATE"); err != nil {
		return err
	}
	orphans, err := c.Exec("DELETE FROM recipients WHERE mail NOT IN (SELECT seq FROM mails)")
	if err != nil {
		return err
	}
	if err := c.Script(countAnew + "; COMMIT"); err != nil {
		return err
	}
	s.log.Warn("the queue's counts were missing; they were counted anew", "recipients_without_mail", orphans)
	return nil
}

const countAnew = `DELETE FROM attempts WHERE (mail, n) NOT IN (SELECT mail, n FROM recipients);
INSERT INTO counts SELECT 1, count(*) FILTER (WHERE state IN (0, 1)), count(*) FILTER (WHERE state = 2),
	count(*) FILTER (WHERE state = 3), count(*) FILTER (WHERE state = 4), count(*) FILTER (WHERE state = 5),
	0, 0, count(*) FILTER (WHERE state = 5 AND bounced = 0), 0, coalesce(max(fence), 0), 0, 0, 0 FROM recipients;
UPDATE counts SET fence = max(fence, (SELECT coalesce(max(fence), 0) FROM attempts)),
	seq = (SELECT coalesce(max(seq), 0) FROM mails),
	(mails, bytes) = (SELECT count(*), coalesce(sum(size), 0) FROM mails WHERE body <> 0),
	(failed_mails, failed_bytes) = (SELECT count(*), coalesce(sum(size), 0) FROM mails WHERE body <> 0
		AND NOT EXISTS (SELECT 1 FROM recipients WHERE mail = seq AND state IN (0, 1, 2, 3)))`

func (n counts) save(c *conn) error {
	_, err := c.Exec(`UPDATE counts SET waiting=?, claimed=?, held=?, sent=?, failed=?,
		mails=?, bytes=?, unbounced=?, seq=?, fence=?, place=?, failed_mails=?, failed_bytes=?`,
		n.state[ready], n.state[claimed], n.state[held], n.state[sent], n.state[failed],
		n.mails, n.bytes, n.unbounced, n.seq, n.fence, n.place, n.failed.mails, n.failed.bytes)
	return err
}

// add counts delta recipients in a state.
func (n *counts) add(state int64, delta int64) {
	if state == later {
		state = ready
	}
	n.state[state] += delta
}

// move counts one recipient that changed its state.
func (n *counts) move(from, to int64) {
	n.add(from, -1)
	n.add(to, 1)
}

// countFailed counts a mail that has no open recipient, and is kept because of
// its failed ones, delta times. What may change that calls it with -1 before and
// with 1 after.
func (t *tx) countFailed(seq, delta int64) error {
	// From the end, because its recipients are tried from the beginning.
	r, err := t.One(`SELECT size FROM mails WHERE seq = ?1 AND body <> 0 AND
		(SELECT 1 FROM recipients WHERE mail = ?1 AND state IN (0, 1, 2, 3) ORDER BY n DESC LIMIT 1) IS NULL`, seq)
	if err == nil && r != nil {
		t.counts.failed.mails += delta
		t.counts.failed.bytes += delta * r.Int(0)
	}
	return err
}
