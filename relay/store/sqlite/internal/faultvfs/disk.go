package faultvfs

import (
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"syscall"

	lib "modernc.org/sqlite/lib"
)

// Op is what was done to a file.
type Op int

const (
	// Write, Truncate and Sync are SQLite's; Sync makes a file's content durable.
	Write Op = iota
	Truncate
	Sync
	// FailedSync is a sync that reported an error. The kernel then may have
	// dropped what was not written yet, and says so only once.
	FailedSync
	// Remove is a file's name going away, at once and for good: a queue that
	// runs removes none of SQLite's files, only making a database does.
	Remove
)

// Codes for Disk.Fail.
const (
	FailWrite = int32(lib.SQLITE_IOERR_WRITE)
	FailSync  = int32(lib.SQLITE_IOERR_FSYNC)
	Full      = int32(lib.SQLITE_FULL)
)

// Event is one thing that was done.
type Event struct {
	Op   Op
	File string // its name without the directory
	Off  int64  // of a Write; the size of a Truncate
	Data []byte
}

// Disk records what happens to the files of one VFS.
type Disk struct {
	original uintptr

	mu     sync.Mutex
	events []Event
	fail   func(op Op, file string) int32
}

// Fail sets what decides, before each operation, whether it fails and with
// which of SQLite's codes; nil for none.
func (d *Disk) Fail(f func(op Op, file string) int32) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.fail = f
}

func (d *Disk) fault(op Op, file string) int32 {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.fail == nil {
		return 0
	}
	return d.fail(op, file)
}

func (d *Disk) record(e Event) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.events = append(d.events, e)
}

// Rewrite is a file of SQLite's that is written again as it is by somebody
// else, and synced.
func (d *Disk) Rewrite(path string) error {
	name := filepath.Base(path)
	content, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if d.fault(Write, name) != 0 {
		return syscall.EIO
	}
	d.record(Event{Op: Write, File: name, Data: content})
	if d.fault(Sync, name) != 0 {
		d.record(Event{Op: FailedSync, File: name})
		return syscall.EIO
	}
	d.record(Event{Op: Sync, File: name})
	return nil
}

// Now is how many events there were.
func (d *Disk) Now() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.events)
}

// sector is what a disk writes whole or not at all.
const sector = 512

// PowerLoss writes to dir what the files might hold had the power gone after
// the first n events: all that was synced, and of what was not, each sector by
// chance.
func (d *Disk) PowerLoss(n int, dir string, chance *rand.Rand) error {
	d.mu.Lock()
	events := d.events[:n]
	d.mu.Unlock()
	type state struct {
		content []byte
		pending []Event
	}
	states := map[string]*state{}
	settle := func(s *state, keep func() bool) {
		for _, e := range s.pending {
			s.content = apply(s.content, e, keep)
		}
		s.pending = nil
	}
	always := func() bool { return true }
	odds := []func() bool{always, func() bool { return false }, func() bool { return chance.IntN(2) == 0 }}
	for _, e := range events {
		s := states[e.File]
		if s == nil {
			s = &state{}
			states[e.File] = s
		}
		switch e.Op {
		case Write, Truncate:
			s.pending = append(s.pending, e)
		case Remove:
			delete(states, e.File)
		case Sync:
			settle(s, always)
		case FailedSync:
			settle(s, func() bool { return chance.IntN(2) == 0 })
		}
	}
	keep := odds[chance.IntN(len(odds))]
	for name, s := range states {
		settle(s, keep)
		if err := os.WriteFile(filepath.Join(dir, name), s.content, 0o600); err != nil {
			return err
		}
	}
	return nil
}

// apply does to content what e did, sector by sector as keep says.
func apply(content []byte, e Event, keep func() bool) []byte {
	if e.Op == Truncate {
		if !keep() {
			return content
		}
		return resize(content, e.Off)
	}
	for from := int64(0); from < int64(len(e.Data)); {
		to := min((e.Off+from)/sector*sector+sector-e.Off, int64(len(e.Data)))
		if keep() {
			content = resize(content, max(int64(len(content)), e.Off+to))
			copy(content[e.Off+from:], e.Data[from:to])
		}
		from = to
	}
	return content
}

func resize(b []byte, size int64) []byte {
	if int64(len(b)) >= size {
		return b[:size:size]
	}
	return append(b, make([]byte, size-int64(len(b)))...)
}
