package app

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/smtp2rest/smtp2rest/relay/pace"
	"github.com/smtp2rest/smtp2rest/relay/queue"
)

// A gate that Retry-After closed stays closed over a restart, however the
// process ended, and the mail goes when it opens.
func TestTheGateOutlivesTheDaemon(t *testing.T) {
	ends := map[string]func(w *world){
		"stopped": func(w *world) { w.stop(time.Minute) },
		"killed":  func(w *world) { w.kill() },
	}
	for name, end := range ends {
		t.Run(name, func(t *testing.T) {
			inVirtualTime(t, "", func(w *world) {
				w.must(w.box.SetOutage("ratelimited+0x600"))
				if got := w.hand("shop@sandbox.example", "s", "bob@example.net"); !strings.HasPrefix(got, "250 2.0.0 queued ") {
					w.t.Fatalf("the client is told %q", got)
				}
				closed := time.Now()
				w.must(w.box.SetOutage(""))
				for range 3 {
					w.pass(time.Minute)
					end(w)
					w.pass(10 * time.Second)
					w.boot()
				}
				if s := w.now.accounts[0].pace.State(); s.PausedUntil.IsZero() {
					t.Error("the gate is open after the restart")
				}
				w.pass(time.Until(closed.Add(600*time.Second - time.Millisecond)))
				if n := w.box.Stats().Calls; n != 1 {
					w.t.Fatalf("%d calls before the gate opened, want the one that closed it", n)
				}
				w.pass(10 * time.Second) // at the pace after a 429
				if n := w.box.AcceptedFor("bob@example.net"); n != 1 {
					t.Errorf("accepted %d times once the gate was open", n)
				}
			})
		})
	}
}

// The rate that was found is kept as well, and is where the next one begins.
func TestTheFoundRateOutlivesTheDaemon(t *testing.T) {
	inVirtualTime(t, "", func(w *world) {
		w.must(w.box.SetRate(20, 1))
		var wg sync.WaitGroup
		for range 400 {
			wg.Go(func() { w.hand("shop@sandbox.example", "s", "bob@example.net") })
		}
		wg.Wait()
		w.pass(time.Minute)
		before := w.now.accounts[0].pace.State()
		if !before.Found || before.Rate < 1 || before.Rate > 40 {
			w.t.Fatalf("the rate that was found is %+v", before)
		}
		mark, err := w.now.kept.queue.Mark(w.t.Context(), markRate)
		if err != nil || mark == "" {
			w.t.Fatalf("the mark is %q, %v", mark, err)
		}
		w.stop(time.Minute)
		w.boot()
		after := w.now.accounts[0].pace.State()
		if !after.Found || after.Rate < before.Rate/3 || after.Rate > before.Rate*3 {
			t.Errorf("the rate is %+v, was %+v", after, before)
		}
	})
}

// marks is a queue.Marks in memory that can be slow, or fail.
type marks struct {
	mu     sync.Mutex
	values map[string]string
	sets   int
	slow   time.Duration
	err    error
}

func (m *marks) Mark(_ context.Context, name string) (string, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.values[name], m.err
}

func (m *marks) SetMark(_ context.Context, name, value string) error {
	time.Sleep(m.slow)
	m.mu.Lock()
	defer m.mu.Unlock()
	m.sets++
	if m.err == nil {
		m.values[name] = value
	}
	return m.err
}

func (m *marks) Marks(context.Context, string) (map[string]string, error) { return nil, nil }
func (m *marks) AddMark(context.Context, string, int64) (int64, error)    { return 0, nil }

var _ queue.Marks = (*marks)(nil)

// The pacer never waits for the disk: of many pauses while one is written only
// the last is, and that even when the daemon ends meanwhile.
func TestTheLastPauseIsWritten(t *testing.T) {
	for range 20 { // the end and the last pause race
		synctest.Test(t, theLastPauseIsWritten)
	}
}

func theLastPauseIsWritten(t *testing.T) {
	m := &marks{values: map[string]string{}, slow: time.Minute}
	g := newSavedPace("", slog.New(slog.DiscardHandler))
	g.start(m)
	begin := time.Now()
	var last time.Time
	for i := range 100 {
		last = begin.Add(time.Duration(i) * time.Hour)
		g.paused(last, 0)
		synctest.Wait()
	}
	if !time.Now().Equal(begin) {
		t.Errorf("the pacer waited for %s", time.Since(begin))
	}
	g.stop()
	if got, want := m.values[markPause], last.UTC().Format(time.RFC3339Nano)+" 99h0m0s"; got != want {
		t.Errorf("the mark is %s, want %s", got, want)
	}
	if m.sets != 2 {
		t.Errorf("%d writes, want the first and the last", m.sets)
	}
	if _, ok := m.values[markRate]; ok {
		t.Error("a rate is written down that nobody found")
	}
}

func TestRestoreFromWhatIsNoTime(t *testing.T) {
	tests := []struct {
		name        string
		pause, rate string
		err         error
		paused      time.Duration
		found       float64
		fails       bool
	}{
		{name: "nothing"},
		{name: "a pause and a rate", pause: "2000-01-01T00:10:00Z 20m0s", rate: "12.500", paused: 10 * time.Minute, found: 12.5},
		{name: "the clock was set back", pause: "2000-01-02T00:00:00Z 2s", paused: 2 * time.Second},
		{name: "what cannot be read", pause: "tomorrow", rate: "fast"},
		{name: "no length", pause: "2000-01-01T00:10:00Z"},
		{name: "over", pause: "1999-01-01T00:00:00Z 1h0m0s"},
		{name: "a negative rate", rate: "-4"},
		{name: "no number", rate: "NaN"},
		{name: "storage that fails", err: errors.New("the disk is on fire"), fails: true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { // time begins with the year 2000
				m := &marks{values: map[string]string{markPause: tt.pause, markRate: tt.rate}, err: tt.err}
				p := pace.New(pace.Options{Settings: pace.Settings{Concurrency: 1, MaxPause: time.Hour}})
				err := newSavedPace("", slog.New(slog.DiscardHandler)).restore(t.Context(), m, p)
				if (err != nil) != tt.fails {
					t.Fatalf("restore: %v", err)
				}
				s := p.State()
				if got := max(time.Until(s.PausedUntil), 0); got != tt.paused || s.Rate != tt.found {
					t.Errorf("paused for %s at %v/s, want %s at %v/s", got, s.Rate, tt.paused, tt.found)
				}
				if tt.fails {
					return
				}
				// Once it is over it is over for the next start as well, whatever the clock says.
				time.Sleep(tt.paused)
				p = pace.New(pace.Options{Settings: pace.Settings{Concurrency: 1, MaxPause: time.Hour}})
				if err := newSavedPace("", slog.New(slog.DiscardHandler)).restore(t.Context(), m, p); err != nil || !p.State().PausedUntil.IsZero() {
					t.Errorf("the next start is paused until %s, %v", p.State().PausedUntil, err)
				}
			})
		})
	}
}

// A pause that cannot be written down is told of, and closes the gate of this
// process all the same.
func TestAPauseThatCannotBeWritten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		j := &journal{}
		g := newSavedPace("", slog.New(slog.NewTextHandler(j, nil)))
		g.start(&marks{values: map[string]string{}, err: errors.New("the disk is on fire")})
		g.paused(time.Now().Add(time.Hour), 3)
		g.stop()
		if !strings.Contains(j.String(), "level=ERROR") || !strings.Contains(j.String(), "the disk is on fire") {
			t.Errorf("the log has %q", j.String())
		}
	})
}
