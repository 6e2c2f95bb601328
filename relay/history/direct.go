package history

import (
	"context"
	"log/slog"
	"sync"
)

// Direct writes facts where no daemon runs that would: many at a time, because
// each write waits for the disk, and a person for all of them.
type Direct struct {
	Store Store
	Log   *slog.Logger

	mu    sync.Mutex
	facts []Fact
}

// Note implements Noter.
func (d *Direct) Note(f Fact) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.facts = append(d.facts, f)
	if len(d.facts) >= atOnce {
		d.write()
	}
}

// Flush writes what waits for company.
func (d *Direct) Flush() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.facts) > 0 {
		d.write()
	}
}

func (d *Direct) write() {
	if err := d.Store.Write(context.Background(), Changes(d.facts...)); err != nil {
		d.Log.Error("the history cannot be written", "cause", err)
	}
	d.facts = nil
}
