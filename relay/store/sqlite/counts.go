package sqlite

// counts is what Stats needs, kept up to date by each commit instead of being
// counted. It is stored with the commit, so that it is right after a crash.
type counts struct {
	state     [failed + 1]int64 // ready counts for later too
	mails     int64             // whose content is kept
	bytes     int64
	unbounced int64
	seq       int64 // the latest mail's
	fence     int64 // the latest claim's
	place     int64 // up to which the segments are in the database; see log.go
}

func loadCounts(c *conn) (counts, error) {
	r, err := c.One("SELECT waiting, claimed, held, sent, failed, mails, bytes, unbounced, seq, fence, place FROM counts")
	if err != nil || r == nil {
		return counts{}, err
	}
	n := counts{mails: r.Int(5), bytes: r.Int(6), unbounced: r.Int(7), seq: r.Int(8), fence: r.Int(9), place: r.Int(10)}
	for i, s := range [...]int{ready, claimed, held, sent, failed} {
		n.state[s] = r.Int(i)
	}
	return n, nil
}

func (n counts) save(c *conn) error {
	_, err := c.Exec(`UPDATE counts SET waiting=?, claimed=?, held=?, sent=?, failed=?,
		mails=?, bytes=?, unbounced=?, seq=?, fence=?, place=?`,
		n.state[ready], n.state[claimed], n.state[held], n.state[sent], n.state[failed],
		n.mails, n.bytes, n.unbounced, n.seq, n.fence, n.place)
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
