package app

import (
	"context"
	"log/slog"
	"strconv"
	"sync"
	"time"

	"github.com/smtp2rest/smtp2rest/relay/pace"
	"github.com/smtp2rest/smtp2rest/relay/queue"
)

// The marks in which a pause and the rate that was found outlive a restart.
const (
	markPause = "pace/paused_until"
	markRate  = "pace/rate"
)

// gatekeeper writes down what a 429 taught, so that a restart does not ask the
// API sooner or faster than it allowed. The pacer must not wait for the disk:
// only the latest pause is kept until it is written.
type gatekeeper struct {
	log    *slog.Logger
	latest chan closing // one slot
	done   chan struct{}
	wg     sync.WaitGroup
}

// closing is one time the gate was closed.
type closing struct {
	until time.Time
	rate  float64
}

func newGatekeeper(log *slog.Logger) *gatekeeper {
	return &gatekeeper{log: log, latest: make(chan closing, 1), done: make(chan struct{})}
}

// paused takes the place of a pause that was not written yet. The pacer calls
// it under its lock, so there is never more than one caller.
func (g *gatekeeper) paused(until time.Time, rate float64) {
	select {
	case <-g.latest:
	default:
	}
	g.latest <- closing{until, rate}
}

// restore puts the pacer where it was.
func (g *gatekeeper) restore(ctx context.Context, marks queue.Marks, p *pace.Pacer) error {
	pause, err := marks.Mark(ctx, markPause)
	if err != nil {
		return err
	}
	rate, err := marks.Mark(ctx, markRate)
	if err != nil {
		return err
	}
	// A mark that cannot be read is as good as none: the API will say it again.
	until, _ := time.Parse(time.RFC3339Nano, pause)
	found, _ := strconv.ParseFloat(rate, 64)
	p.Resume(until, found)
	return nil
}

func (g *gatekeeper) start(marks queue.Marks) {
	g.wg.Go(func() {
		for {
			select {
			case c := <-g.latest:
				g.write(marks, c)
			case <-g.done:
				select {
				case c := <-g.latest:
					g.write(marks, c)
				default:
				}
				return
			}
		}
	})
}

// stop writes what was not written yet.
func (g *gatekeeper) stop() {
	close(g.done)
	g.wg.Wait()
}

func (g *gatekeeper) write(marks queue.Marks, c closing) {
	ctx := context.Background()
	err := marks.SetMark(ctx, markPause, c.until.UTC().Format(time.RFC3339Nano))
	if err == nil && c.rate > 0 {
		err = marks.SetMark(ctx, markRate, strconv.FormatFloat(c.rate, 'f', 3, 64))
	}
	if err != nil {
		g.log.Error("the pause that the API asked for cannot be written down", "cause", err)
	}
}
