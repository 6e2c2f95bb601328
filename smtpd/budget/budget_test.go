package budget

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/goleak"
	"pgregory.net/rapid"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const mb = 1 << 20

func within(t *testing.T, d time.Duration) context.Context {
	ctx, cancel := context.WithTimeout(t.Context(), d)
	t.Cleanup(cancel)
	return ctx
}

// hold is a share that holds n at once.
func hold(t *testing.T, b *Budget, kind Kind, n int64) *Share {
	t.Helper()
	s := b.Share()
	if err := s.Hold(within(t, 0), kind, n); err != nil {
		t.Fatalf("%d of kind %d: %v", n, kind, err)
	}
	return s
}

// Who may hold what beside whom.
func TestHold(t *testing.T) {
	type held struct {
		kind Kind
		n    int64
	}
	many := func(n int, h held) []held { return slices.Repeat([]held{h}, n) }
	for _, tt := range []struct {
		name   string
		before []held
		want   held
		err    error
	}{
		{"half of it is for reading", nil, held{Reading, 50 * mb}, nil},
		{"and no more", nil, held{Reading, 50*mb + 1}, ErrTooLarge},
		{"together", []held{{Reading, 30 * mb}, {Reading, 20 * mb}}, held{Reading, mb}, ErrSpent},
		{"small mail passes all the same", []held{{Reading, 30 * mb}, {Reading, 20 * mb}}, held{Reading, small}, nil},
		{"small mail is not without bound", append(many(25, held{Reading, small}), held{Reading, 50*mb - 25*small}), held{Reading, small}, ErrSpent},
		{"all of it is for dealing", nil, held{Dealing, 100 * mb}, nil},
		{"and for one half as much again", nil, held{Dealing, 150 * mb}, nil},
		{"which is the only one", []held{{Dealing, 150 * mb}}, held{Dealing, 100*mb + 1}, ErrSpent},
		{"of the backlog as well", []held{{Backlog, 51 * mb}}, held{Dealing, 100*mb + 1}, ErrSpent},
		{"and counts as half, for what comes", []held{{Dealing, 150 * mb}}, held{Reading, 50 * mb}, nil},
		{"and for others", []held{{Dealing, 150 * mb}, {Reading, 40 * mb}}, held{Dealing, 10*mb + 1}, ErrSpent},
		{"and has room when half is coming", []held{{Reading, 50 * mb}}, held{Dealing, 150 * mb}, nil},
		{"and no more", nil, held{Dealing, 150*mb + 1}, ErrTooLarge},
		{"but for what was accepted", nil, held{Backlog, 1000 * mb}, nil},
		{"what was read can be dealt with", []held{{Reading, 50 * mb}}, held{Dealing, 50 * mb}, nil},
		{"in what is left", []held{{Reading, 50 * mb}}, held{Dealing, 50*mb + 1}, ErrSpent},
		{"small mail needs room as well", []held{{Dealing, 100 * mb}}, held{Reading, 1}, ErrSpent},
		{"the backlog has a quarter", []held{{Backlog, 20 * mb}}, held{Backlog, 5 * mb}, nil},
		{"but for a single mail", nil, held{Backlog, 80 * mb}, nil},
		{"and no second one", []held{{Backlog, 20 * mb}}, held{Backlog, 5*mb + 1}, ErrSpent},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b := New(100*mb, nil)
			for _, h := range tt.before {
				hold(t, b, h.kind, h.n)
			}
			if err := b.Share().Hold(within(t, 0), tt.want.kind, tt.want.n); !errors.Is(err, tt.err) {
				t.Errorf("got %v, want %v", err, tt.err)
			}
		})
	}
}

// A share can always become less, whatever it is for, and a failure changes
// nothing.
func TestHoldLess(t *testing.T) {
	b := New(100*mb, nil)
	s := hold(t, b, Dealing, 90*mb)
	if err := s.Hold(within(t, 0), Dealing, 151*mb); !errors.Is(err, ErrTooLarge) || b.used != 90*mb {
		t.Errorf("%v, %d used", err, b.used)
	}
	hold(t, b, Dealing, 10*mb)
	large := hold(t, b, Dealing, 0)
	s.Release()
	if err := large.Hold(within(t, 0), Dealing, 140*mb); err != nil || b.used != 60*mb {
		t.Errorf("%v, %d used", err, b.used)
	}
	hold(t, b, Dealing, 40*mb)
	for _, less := range []int64{130 * mb, 70 * mb, 30 * mb} { // more than it counts as, and less
		if err := large.Hold(within(t, 0), Dealing, less); err != nil || b.used != 50*mb+min(less, 50*mb) {
			t.Errorf("%v, %d used", err, b.used)
		}
	}
	if b.large != nil {
		t.Error("it is still larger than its share")
	}
	b = New(100*mb, nil)
	s = hold(t, b, Dealing, 90*mb)
	if err := s.Hold(within(t, 0), Reading, 80*mb); err != nil || b.used != 80*mb || b.byKind[Reading] != 80*mb || b.byKind[Dealing] != 0 {
		t.Errorf("%v, %d used, %v", err, b.used, b.byKind)
	}
	s.Release()
	s.Release()
	if b.used != 0 || b.byKind != [3]int64{} {
		t.Errorf("%d used, %v", b.used, b.byKind)
	}
	var none *Share
	none.Release()
	if err := none.Hold(t.Context(), Dealing, 1<<60); err != nil {
		t.Error(err)
	}
}

// Who waits gets what is given back: what has come before what is coming, the
// first before the second.
func TestOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := New(100*mb, nil)
		all := hold(t, b, Dealing, 100*mb)
		var mu sync.Mutex
		var order []string
		var wg sync.WaitGroup
		want := func(name string, kind Kind, n int64) {
			wg.Go(func() {
				s := b.Share()
				if err := s.Hold(t.Context(), kind, n); err != nil {
					t.Error(err)
				}
				mu.Lock()
				order = append(order, name)
				mu.Unlock()
				time.Sleep(time.Second)
				s.Release()
			})
			synctest.Wait()
		}
		want("reader 1", Reading, 50*mb)
		want("reader 2", Reading, 40*mb)
		want("backlog", Backlog, 60*mb)
		want("dealer 1", Dealing, 80*mb)
		want("dealer 2", Dealing, 60*mb)
		all.Release()
		wg.Wait()
		got := [5]string(order)
		if got != [5]string{"backlog", "dealer 1", "dealer 2", "reader 1", "reader 2"} {
			t.Errorf("%v", got)
		}
	})
}

// Who gives up waiting holds up nobody.
func TestGivingUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := New(100*mb, nil)
		hold(t, b, Dealing, 60*mb)
		var wg sync.WaitGroup
		wg.Go(func() {
			if err := b.Share().Hold(within(t, 5*time.Second), Dealing, 80*mb); !errors.Is(err, ErrSpent) {
				t.Error(err)
			}
		})
		synctest.Wait()
		began := time.Now()
		if err := b.Share().Hold(within(t, time.Minute), Reading, 40*mb); err != nil {
			t.Error(err)
		}
		if d := time.Since(began); d != 5*time.Second {
			t.Errorf("waited %v", d)
		}
		wg.Wait()
		if len(b.waiting) > 0 || b.used != 100*mb {
			t.Errorf("%d wait, %d used", len(b.waiting), b.used)
		}
	})
}

// Mails of unknown size that have filled what there is for them, each in need
// of more, do not wait for each other: the youngest go, the oldest come to
// their end, and nobody waits who need not.
func TestStuck(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := New(100*mb, nil)
		began := time.Now()
		var wg sync.WaitGroup
		var mu sync.Mutex
		var ended []int
		spent := 0
		grow := func(s *Share) bool {
			for n := int64(11); n <= 30; n++ {
				if err := s.Hold(within(t, time.Minute), Reading, n*mb); err != nil {
					s.Release()
					return false
				}
			}
			s.Release()
			return true
		}
		var shares []*Share
		for range 5 {
			shares = append(shares, hold(t, b, Reading, 10*mb))
		}
		for i, s := range shares {
			wg.Go(func() {
				for !grow(s) { // clients come again, at once
					mu.Lock()
					spent++
					mu.Unlock()
					if err := s.Hold(within(t, time.Minute), Reading, small); err != nil {
						t.Error(err)
					}
				}
				mu.Lock()
				ended = append(ended, i)
				mu.Unlock()
			})
		}
		wg.Wait()
		if d := time.Since(began); d > 0 || spent == 0 || len(ended) != 5 {
			t.Errorf("%d gave up, it took %v, they ended as %v", spent, d, ended)
		}
	})
}

// Connections are never refused, and mail gets what they leave.
func TestOverhead(t *testing.T) {
	b := New(100*mb, nil)
	b.Overhead(90 * mb)
	if err := b.Share().Hold(within(t, 0), Reading, 11*mb); !errors.Is(err, ErrSpent) {
		t.Error(err)
	}
	b.Overhead(20 * mb)
	b.Overhead(-110 * mb)
	hold(t, b, Dealing, 100*mb)
}

// Whatever is asked for in whatever order, no more is given than there is, and
// all of it comes back.
func TestNeverMore(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		b := New(10*mb, nil)
		shares := make([]*Share, 4)
		for i := range shares {
			shares[i] = b.Share()
		}
		done, cancel := context.WithCancel(context.Background())
		cancel()
		for range rapid.IntRange(1, 40).Draw(t, "steps") {
			s := shares[rapid.IntRange(0, 3).Draw(t, "share")]
			kind := Kind(rapid.IntRange(0, 2).Draw(t, "kind"))
			n := rapid.Int64Range(0, 16*mb).Draw(t, "n")
			heldBefore, kindBefore := s.held, s.kind
			if err := s.Hold(done, kind, n); err != nil && (s.held != heldBefore || s.kind != kindBefore) {
				t.Fatal("a failure changed something")
			}
			var sum, little, reading int64
			var large *Share
			for _, s := range shares {
				if s.asked > s.held {
					if large != nil {
						t.Fatal("two are larger than their shares")
					}
					large = s
				}
				sum += s.held
				little += s.ifSmall()
			}
			for _, n := range b.byClient {
				reading += n
			}
			if large != b.large || reading != b.byKind[Reading] || len(b.waiting) > 0 || b.inSmall != little || b.used != sum || sum > b.size || b.byKind[0]+b.byKind[1]+b.byKind[2] != sum {
				t.Fatalf("%d used, %d held, %v", b.used, sum, b.byKind)
			}
		}
		for _, s := range shares {
			s.Release()
		}
		if b.used != 0 {
			t.Fatalf("%d left", b.used)
		}
	})
}
