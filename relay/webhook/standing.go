package webhook

import (
	"sync"
	"time"
)

// Standing is how the endpoint fares, for those who look after it.
type Standing struct {
	// Forged is how many requests had no good signature since the last one that
	// had, ForgedSince when the first of them came, ForgedLast the latest.
	Forged                  int
	ForgedSince, ForgedLast time.Time
	// Unkept is why the latest event could not be kept, nil if it could;
	// UnkeptSince is when that began.
	Unkept      error
	UnkeptSince time.Time
}

// standing is a Standing that changes.
type standing struct {
	mu  sync.Mutex
	now Standing
}

// Standing returns how the endpoint fares now.
func (h *Handler) Standing() Standing {
	h.standing.mu.Lock()
	defer h.standing.mu.Unlock()
	return h.standing.now
}

func (s *standing) forged(at time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.now.Forged == 0 {
		s.now.ForgedSince = at
	}
	s.now.Forged++
	s.now.ForgedLast = at
}

func (s *standing) signed() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.now.Forged, s.now.ForgedSince, s.now.ForgedLast = 0, time.Time{}, time.Time{}
}

func (s *standing) kept(err error, at time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case err == nil:
		s.now.UnkeptSince = time.Time{}
	case s.now.Unkept == nil:
		s.now.UnkeptSince = at
	}
	s.now.Unkept = err
}
