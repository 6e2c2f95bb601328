package history

import (
	"context"
	"log/slog"
)

// Direct writes each fact at once, where no daemon runs that would.
type Direct struct {
	Store Store
	Log   *slog.Logger
}

// Note implements Noter.
func (d Direct) Note(f Fact) {
	if err := d.Store.Write(context.Background(), Changes(f)); err != nil {
		d.Log.Error("the history cannot be written", "cause", err)
	}
}
