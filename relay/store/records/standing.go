package records

import "time"

// Standing is how the records fare.
type Standing struct {
	// Err is why the latest write failed, nil if it did not; Since is when that
	// began.
	Err   error
	Since time.Time
	// Damaged says that the file was found damaged. It stays so until the next
	// Open, which sets the file aside.
	Damaged bool
}

// Standing returns it.
func (s *Store) Standing() Standing {
	s.standingMu.Lock()
	defer s.standingMu.Unlock()
	return s.standing
}

// failing notes that a write failed, or that nothing is written any more.
func (s *Store) failing(err error, damaged bool) {
	s.standingMu.Lock()
	defer s.standingMu.Unlock()
	if s.standing.Err == nil {
		s.standing.Since = time.Now()
	}
	s.standing.Err = err
	s.standing.Damaged = s.standing.Damaged || damaged
}

// working notes that a write succeeded.
func (s *Store) working() {
	s.standingMu.Lock()
	defer s.standingMu.Unlock()
	if !s.standing.Damaged {
		s.standing = Standing{}
	}
}
