package app

import (
	"io/fs"
	"os"
)

// watched is a file that is read again when it has changed. It is looked at
// whenever it is needed, which costs a microsecond and needs no goroutine.
type watched struct {
	path string      // "" is no file
	seen fs.FileInfo // as it was last looked at; nil when it was not there
}

// watch begins before the file is read for the first time, so that no change
// is missed.
func watch(path string) watched {
	w := watched{path: path}
	_ = w.changed()
	return w
}

// changed reports whether the file is another than at the last look.
func (w *watched) changed() bool {
	if w.path == "" {
		return false
	}
	now, err := os.Stat(w.path)
	if err != nil {
		now = nil // what is wrong with it is told by reading it
	}
	if w.seen == nil || now == nil {
		changed := w.seen != now
		w.seen = now
		return changed
	}
	same := os.SameFile(w.seen, now) && w.seen.Size() == now.Size() && w.seen.ModTime().Equal(now.ModTime())
	w.seen = now
	return !same
}
