package records

import "time"

// trouble is why the latest write failed, and since when writes fail.
type trouble struct {
	err     error
	since   time.Time
	damaged bool // until the next Open, which sets the file aside
}

// Trouble is why the records are not kept, and since when; nil when they are.
// damaged says that this lasts until the next start sets the file aside.
func (s *Store) Trouble() (since time.Time, damaged bool, err error) {
	s.standingMu.Lock()
	defer s.standingMu.Unlock()
	return s.standing.since, s.standing.damaged, s.standing.err
}

// failing notes that a write failed, or that nothing is written any more.
func (s *Store) failing(err error, damaged bool) {
	s.standingMu.Lock()
	defer s.standingMu.Unlock()
	if s.standing.err == nil {
		s.standing.since = time.Now()
	}
	s.standing.err = err
	s.standing.damaged = s.standing.damaged || damaged
}

// working notes that a write succeeded.
func (s *Store) working() {
	s.standingMu.Lock()
	defer s.standingMu.Unlock()
	if !s.standing.damaged {
		s.standing = trouble{}
	}
}
