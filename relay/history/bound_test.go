package history

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"pgregory.net/rapid"

	"github.com/smtp2rest/smtp2rest/relay"
)

// moody is a store that takes a few writes and then none, until it is told to
// take more. It remembers what it was given.
type moody struct {
	fakeStore
	takes int
	steps []string
}

func (s *moody) Write(_ context.Context, changes []Change) error {
	if s.takes == 0 {
		return errors.New("no disk")
	}
	s.takes--
	for _, c := range changes {
		for _, r := range c.Recipients {
			for _, step := range r.Steps {
				s.steps = append(s.steps, step.Text)
			}
		}
	}
	return nil
}

// Whatever the store does, no more is kept for it than the bound allows, nothing
// is lost while there is room, and what was kept is written once.
func TestWhatWaitsIsBounded(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		const most = 100
		s := &moody{}
		r := NewRecorder(Options{Bounds: Bounds{Keep: time.Hour}, Store: s, Log: slog.New(slog.DiscardHandler), most: most, atOnce: rapid.IntRange(1, 200).Draw(t, "at once")})
		var kept []string
		noted, lost := 0, 0
		t.Repeat(map[string]func(*rapid.T){
			"note": func(t *rapid.T) {
				for range rapid.IntRange(1, 40).Draw(t, "facts") {
					var to []string
					for n := range rapid.IntRange(1, 5).Draw(t, "recipients") {
						to = append(to, fmt.Sprint(n, "@example.net"))
					}
					noted++
					text := fmt.Sprint(noted)
					room := len(kept)-len(s.steps)+len(to) <= most
					r.Note(Answered{ID: relay.NewID(time.UnixMilli(int64(noted % 7))), To: to, Each: true, Taken: true, Reply: text})
					if !room {
						lost += len(to)
						continue
					}
					for range to {
						kept = append(kept, text)
					}
				}
			},
			"write": func(t *rapid.T) {
				s.takes = rapid.IntRange(0, 3).Draw(t, "takes")
				_ = r.writeAll()
			},
			"": func(t *rapid.T) {
				if held := len(kept) - len(s.steps); held > most || r.waiting != held {
					t.Fatalf("%d wait, %d are counted, at most %d may", held, r.waiting, most)
				}
				if got := testutil.ToFloat64(r.metrics.lost); got != float64(lost) {
					t.Fatalf("%v are lost, want %d", got, lost)
				}
			},
		})
		s.takes = 1 << 20
		if err := r.writeAll(); err != nil || r.waiting != 0 || len(r.facts) != 0 {
			t.Fatalf("%v, %d still wait", err, r.waiting)
		}
		slices.Sort(s.steps)
		slices.Sort(kept)
		if !slices.Equal(s.steps, kept) {
			t.Fatalf("written are %q, want %q", s.steps, kept)
		}
	})
}
