package sqlite

import (
	"bytes"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"sync"
)

// memFS is a spool in memory that knows what of it would survive.
type memFS struct {
	disk *faultDisk

	mu    sync.Mutex
	files map[string]*memFile
	fail  func(op, name string) error
}

// memFile's times are numbers of events on the disk; 0 is never.
type memFile struct {
	fs                      *memFS
	name                    string
	data                    []byte // with what was cut off
	size                    int
	reached                 []reach
	created, named, removed int
}

// reach is how long a file was at a time.
type reach struct {
	at, size int
	synced   bool
}

// survives is what of it a loss of power after n events leaves at least, and
// at the most.
func (f *memFile) survives(n int) (least, most int) {
	for _, r := range f.reached {
		switch {
		case r.at > n+1:
			return least, most
		case r.synced:
			least, most = r.size, r.size
		default:
			least, most = min(least, r.size), max(most, r.size)
		}
	}
	return least, most
}

// resize notes how long the file is now; for its Write and Truncate.
func (f *memFile) resize(size int) {
	f.size = size
	f.reached = append(f.reached, reach{at: f.fs.now(), size: size})
}

func newMemFS(d *faultDisk) *memFS { return &memFS{disk: d, files: map[string]*memFile{}} }

// setFail is for while the store is open.
func (m *memFS) setFail(f func(op, name string) error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.fail = f
}

func (m *memFS) check(op, name string) error {
	if m.fail == nil {
		return nil
	}
	return m.fail(op, name)
}

func (m *memFS) now() int { return m.disk.Now() + 1 }

func (m *memFS) Create(name string) (spoolFile, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.check("create", name); err != nil {
		return nil, err
	}
	f := &memFile{fs: m, name: name, created: m.now()}
	m.files[name] = f
	return f, nil
}

func (f *memFile) Write(p []byte) (int, error) {
	f.fs.mu.Lock()
	defer f.fs.mu.Unlock()
	if err := f.fs.check("write", f.name); err != nil {
		f.data = append(f.data[:f.size], p[:len(p)/2]...)
		f.resize(len(f.data))
		return len(p) / 2, err
	}
	f.data = append(f.data[:f.size], p...)
	f.resize(len(f.data))
	return len(p), nil
}

func (f *memFile) Sync() error {
	for range 100 {
		runtime.Gosched() // so that what does not wait for it overtakes it
	}
	f.fs.mu.Lock()
	fail := f.fs.fail
	f.fs.mu.Unlock()
	if fail != nil {
		if err := fail("sync", f.name); err != nil { // without the lock: it may take a while
			return err
		}
	}
	f.fs.mu.Lock()
	defer f.fs.mu.Unlock()
	f.reached = append(f.reached, reach{f.fs.now(), f.size, true})
	return nil
}

func (f *memFile) Close() error { return nil }

func (m *memFS) Open(name string) (io.ReadCloser, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	f := m.files[name]
	if f == nil || f.removed > 0 {
		return nil, os.ErrNotExist
	}
	return memReader{bytes.NewReader(bytes.Clone(f.data[:f.size]))}, m.check("open", name)
}

type memReader struct{ *bytes.Reader }

func (memReader) Close() error { return nil }

func (m *memFS) Remove(name string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if f := m.files[name]; f != nil {
		f.removed = m.now()
	}
	return m.check("remove", name)
}

func (m *memFS) Move(from, to string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.files[to] = m.files[from]
	delete(m.files, from)
	return nil
}

func (m *memFS) SyncDir(name string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.check("syncdir", name); err != nil {
		return err
	}
	for _, f := range m.files {
		if f.named == 0 {
			f.named = m.now()
		}
	}
	return nil
}

func (m *memFS) Names(_ string, f func(name string) error) error {
	var names []string
	m.mu.Lock()
	for name, file := range m.files {
		if file.removed == 0 {
			names = append(names, filepath.Base(name))
		}
	}
	m.mu.Unlock()
	for _, name := range names {
		if err := f(name); err != nil {
			return err
		}
	}
	return nil
}

// count is how many files there are.
func (m *memFS) count() int {
	n := 0
	_ = m.Names("", func(string) error { n++; return nil })
	return n
}

// powerLoss writes to dir what the spool might hold after n events.
func (m *memFS) powerLoss(n int, dir string, chance *rand.Rand) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	happened := func(at int) bool { return at > 0 && at <= n+1 }
	for name, f := range m.files {
		switch {
		case !happened(f.created):
			continue
		case !happened(f.named) && chance.IntN(2) == 0:
			continue
		case happened(f.removed) && chance.IntN(2) == 0:
			continue
		}
		least, most := f.survives(n)
		data := bytes.Clone(f.data[:least+chance.IntN(most-least+1)])
		if chance.IntN(2) == 0 { // by sectors, instead of the first of it
			data = bytes.Clone(f.data[:most])
			for from := least; from < most; from += 512 {
				if chance.IntN(2) == 0 {
					clear(data[from:min(from+512, most)])
				}
			}
		}
		if err := os.WriteFile(filepath.Join(dir, filepath.Base(name)), data, 0o600); err != nil {
			return err
		}
	}
	return nil
}
