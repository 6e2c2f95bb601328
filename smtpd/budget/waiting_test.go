package budget

import (
	"context"
	"errors"
	"net/netip"
	"strconv"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

func from(n int) netip.Prefix { return netip.MustParsePrefix("192.0.2." + strconv.Itoa(n) + "/32") }

// reader is a client's share whose owner gives way when it is woken.
func reader(t *testing.T, b *Budget, client int, n int64) (s *Share, gaveWay chan struct{}) {
	t.Helper()
	woken := make(chan struct{}, 10)
	s, gaveWay = b.ShareOf(from(client), func() { woken <- struct{}{} }), make(chan struct{})
	if err := s.Hold(within(t, 0), Reading, n); err != nil {
		t.Fatal(err)
	}
	go func() {
		select {
		case <-woken:
			if !s.Pressed() {
				t.Error("woken for nothing")
			}
			s.Release()
			close(gaveWay)
		case <-t.Context().Done():
		}
	}()
	return s, gaveWay
}

func closed(c chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// Clients that are slow give way to who waits: the largest, no more than it
// takes, and none that still sends.
func TestSlowGivesWay(t *testing.T) {
	for _, tt := range []struct {
		name string
		kind Kind
		want int64
		busy int64 // is held by a mail that has come
		took time.Duration
		gave [3]bool // of 10, 25 and 15 MB, and that of 15 grows every two seconds
		err  error
	}{
		{"enough by one", Reading, 20 * mb, 0, slowAfter, [3]bool{false, true, false}, nil},
		{"by two", Reading, 30 * mb, 0, slowAfter, [3]bool{true, true, false}, nil},
		{"not enough with all", Reading, 36 * mb, 0, 5 * time.Second, [3]bool{}, ErrSpent},
		{"for what has come", Dealing, 75 * mb, 0, slowAfter, [3]bool{false, true, false}, nil},
		{"for the backlog", Backlog, 50 * mb, 25 * mb, slowAfter, [3]bool{false, true, false}, nil},
		{"small mail needs nobody's", Reading, small, 0, 0, [3]bool{}, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				b := New(100*mb, nil)
				_, first := reader(t, b, 1, 10*mb)
				_, second := reader(t, b, 2, 25*mb)
				s, third := reader(t, b, 3, 15*mb-10)
				hold(t, b, Dealing, tt.busy)
				go func() {
					for n := int64(1); ; n++ {
						select {
						case <-time.After(2 * time.Second):
						case <-ctx.Done():
							return
						}
						if err := s.Hold(ctx, Reading, 15*mb-10+n); err != nil {
							t.Error(err)
						}
					}
				}()
				began := time.Now()
				err := b.ShareOf(from(4), func() {}).Hold(within(t, 5*time.Second), tt.kind, tt.want)
				took := time.Since(began)
				synctest.Wait()
				gave := [3]bool{closed(first), closed(second), closed(third)}
				if !errors.Is(err, tt.err) || gave != tt.gave || took < tt.took || took > tt.took+lookAgain {
					t.Errorf("%v after %v, gave way: %v; want %v after %v, %v", err, took, gave, tt.err, tt.took, tt.gave)
				}
			})
		})
	}
}

// A mail that comes to its end before it could give way need not any more.
func TestEndedInTime(t *testing.T) {
	b := New(100*mb, nil)
	s := b.ShareOf(from(1), func() {})
	for _, then := range []struct {
		kind Kind
		n    int64
		err  error
	}{{Reading, 41 * mb, ErrSpent}, {Dealing, 60 * mb, nil}, {Reading, 0, nil}} {
		if err := s.Hold(within(t, time.Minute), Reading, 40*mb); err != nil {
			t.Fatal(err)
		}
		b.press(time.Now()) // nobody waits
		if s.Pressed() {
			t.Error("pressed for nobody")
		}
		s.pressed.Store(true)
		if err := s.Hold(within(t, time.Minute), then.kind, then.n); !errors.Is(err, then.err) || s.Pressed() != (err != nil) {
			t.Errorf("%v, pressed %v", err, s.Pressed())
		}
		s.Release()
		if s.Pressed() {
			t.Error("pressed after Release")
		}
	}
}

// When the last that moved is gone and left too little, the first in line goes
// on at once all the same.
func TestStuckByRelease(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := New(100*mb, nil)
		old, young := hold(t, b, Reading, 30*mb), hold(t, b, Reading, 20*mb)
		extra := hold(t, b, Reading, small)
		began := time.Now()
		var wg sync.WaitGroup
		wg.Go(func() {
			if err := old.Hold(within(t, time.Minute), Reading, 31*mb); err != nil {
				t.Error(err)
			}
		})
		wg.Go(func() {
			if err := young.Hold(within(t, time.Minute), Reading, 21*mb); !errors.Is(err, ErrSpent) {
				t.Error(err)
			}
			young.Release()
		})
		synctest.Wait()
		extra.Release()
		wg.Wait()
		if d := time.Since(began); d > 0 {
			t.Errorf("they waited %v", d)
		}
	})
}

// One client with any number of mails, all fast, does not keep another from
// sending one; and its own come to their end.
func TestParts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := New(100*mb, nil)
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		var mu sync.Mutex
		ended := 0
		send := func(client int, size int64) bool {
			s := b.ShareOf(from(client), func() {})
			defer s.Release()
			for n := int64(small); n <= size; n += small {
				if err := s.Hold(within(t, 5*time.Second), Reading, n); err != nil {
					return false
				}
				time.Sleep(20 * time.Millisecond)
			}
			return true
		}
		for i := range 50 {
			wg.Go(func() {
				time.Sleep(time.Duration(i) * 100 * time.Millisecond)
				for ctx.Err() == nil {
					if send(1, 10*mb) {
						mu.Lock()
						ended++
						mu.Unlock()
					} else {
						time.Sleep(time.Millisecond) // to connect again
					}
				}
			})
		}
		time.Sleep(10 * time.Second)
		for range 20 {
			began := time.Now()
			if !send(2, 20*mb) {
				t.Errorf("refused after %v", time.Since(began))
			}
		}
		cancel()
		wg.Wait()
		if ended < 50 {
			t.Errorf("only %d mails of the many came to their end", ended)
		}
	})
}

// Who waits for memory is not slow, however long it waits.
func TestWaitingIsNotSlow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := New(100*mb, nil)
		hold(t, b, Dealing, 40*mb)
		first, _ := reader(t, b, 1, 30*mb)
		second, gaveWay := reader(t, b, 2, 20*mb)
		ctx, cancel := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		for _, s := range []*Share{first, second} {
			wg.Go(func() { _ = s.Hold(ctx, Reading, 31*mb) }) // until the end
			synctest.Wait()
		}
		time.Sleep(slowAfter + 2*lookAgain)
		synctest.Wait()
		if closed(gaveWay) {
			t.Error("the second gave way")
		}
		cancel()
		wg.Wait()
	})
}

// What others announced and do send is waited for, but keeps nobody out; what
// they hold does.
func TestAnnounce(t *testing.T) {
	for _, tt := range []struct {
		name            string
		held, announced int64 // by another, who is fast or does not give way
		fast            bool
		want            int64
		took            time.Duration
		err             error
	}{
		{"room", mb, 30 * mb, true, 20 * mb, 0, nil},
		{"another sends", mb, 40 * mb, true, 20 * mb, 5 * time.Second, nil},
		{"another does not send what it announced", mb, 40 * mb, false, 20 * mb, slowAfter, nil},
		{"another has sent", 40 * mb, 40 * mb, true, 20 * mb, 5 * time.Second, ErrSpent},
		{"small mail", mb, 50 * mb, true, small, 0, nil},
		{"of an unknown size", mb, 50 * mb, true, 0, 0, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				b := New(100*mb, nil)
				other, s := b.Share(), b.Share()
				if err := other.Announce(within(t, 0), tt.announced); err != nil {
					t.Fatal(err)
				}
				if err := other.Hold(within(t, 0), Reading, tt.held); err != nil {
					t.Fatal(err)
				}
				stopped := make(chan struct{})
				go func() {
					defer close(stopped)
					for n := int64(1); tt.fast; n++ {
						_ = other.Hold(ctx, Reading, tt.held+n) // there is room for it
						select {
						case <-time.After(time.Second):
						case <-ctx.Done():
							return
						}
					}
				}()
				began := time.Now()
				err := s.Announce(within(t, 5*time.Second), tt.want)
				if took := time.Since(began); !errors.Is(err, tt.err) || took < tt.took || took > tt.took+lookAgain {
					t.Errorf("%v after %v, want %v after %v", err, took, tt.err, tt.took)
				}
				cancel()
				<-stopped
				other.Release()
				if len(b.announced) > 0 || b.ahead(time.Now()) > tt.want {
					t.Errorf("%d wait to begin, %d bytes are expected", len(b.announced), b.ahead(time.Now()))
				}
				s.Release()
				if len(b.expected) > 0 && err == nil && tt.want > small {
					t.Error("what came to nothing is still expected")
				}
			})
		})
	}
}
