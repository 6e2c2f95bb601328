package sqlite

import (
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"unsafe"

	"modernc.org/libc"
	lib "modernc.org/sqlite/lib"
)

// What follows puts itself between SQLite and the operating system, for
// tests: it can make writes and syncs fail, and it records both, so that a
// test can put together what a disk might hold after a loss of power.
//
// The driver has no way to write a VFS in Go, so this one is a copy of
// SQLite's own with a few methods replaced, at the C structures' offsets.

// diskOp is what was done to a file.
type diskOp int

const (
	// opWrite, opTruncate and opSync are SQLite's; opSync makes a file's content durable.
	opWrite diskOp = iota
	opTruncate
	opSync
	// opFailedSync is a sync that reported an error. The kernel then may have
	// dropped what was not written yet, and says so only once.
	opFailedSync
	// opRemove is a file's name going away, at once and for good: a queue that
	// runs removes none of SQLite's files, only making a database does.
	opRemove
)

// Codes for faultDisk.Fail.
const (
	failWrite = int32(lib.SQLITE_IOERR_WRITE)
	failSync  = int32(lib.SQLITE_IOERR_FSYNC)
	failFull  = int32(lib.SQLITE_FULL)
)

// diskEvent is one thing that was done.
type diskEvent struct {
	Op   diskOp
	File string // its name without the directory
	Off  int64  // of an opWrite; the size of an opTruncate
	Data []byte
}

// faultDisk records what happens to the files of one VFS.
type faultDisk struct {
	original uintptr

	mu     sync.Mutex
	events []diskEvent
	fail   func(op diskOp, file string) int32
}

// Fail sets what decides, before each operation, whether it fails and with
// which of SQLite's codes; nil for none.
func (d *faultDisk) Fail(f func(op diskOp, file string) int32) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.fail = f
}

func (d *faultDisk) fault(op diskOp, file string) int32 {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.fail == nil {
		return 0
	}
	return d.fail(op, file)
}

func (d *faultDisk) record(e diskEvent) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.events = append(d.events, e)
}

// Rewrite is a file of SQLite's that is written again as it is by somebody
// else, and synced.
func (d *faultDisk) Rewrite(path string) error {
	name := filepath.Base(path)
	content, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if d.fault(opWrite, name) != 0 {
		return syscall.EIO
	}
	d.record(diskEvent{Op: opWrite, File: name, Data: content})
	if d.fault(opSync, name) != 0 {
		d.record(diskEvent{Op: opFailedSync, File: name})
		return syscall.EIO
	}
	d.record(diskEvent{Op: opSync, File: name})
	return nil
}

// Now is how many events there were.
func (d *faultDisk) Now() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.events)
}

// sector is what a disk writes whole or not at all.
const sector = 512

// PowerLoss writes to dir what the files might hold had the power gone after
// the first n events: all that was synced, and of what was not, each sector by
// chance.
func (d *faultDisk) PowerLoss(n int, dir string, chance *rand.Rand) error {
	d.mu.Lock()
	events := d.events[:n]
	d.mu.Unlock()
	type state struct {
		content []byte
		pending []diskEvent
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
		case opWrite, opTruncate:
			s.pending = append(s.pending, e)
		case opRemove:
			delete(states, e.File)
		case opSync:
			settle(s, always)
		case opFailedSync:
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
func apply(content []byte, e diskEvent, keep func() bool) []byte {
	if e.Op == opTruncate {
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

// Offsets and sizes of sqlite3_vfs and sqlite3_io_methods on 64-bit systems.
const (
	vfsSize, vfsName, vfsOpen, vfsDelete              = 168, 24, 40, 48
	methodsSize                                       = 152
	methodClose, methodWrite, methodTrunc, methodSync = 8, 24, 32, 40
)

// C has no place for a Go value in these calls, so the open files and the
// disks are found by the addresses that SQLite passes.
var (
	mu    sync.Mutex
	disks = map[uintptr]*faultDisk{} // by their sqlite3_vfs
	files = map[uintptr]*file{}      // by their sqlite3_file
)

type file struct {
	disk    *faultDisk
	name    string
	methods uintptr // the original's
}

type (
	openFunc   func(tls *libc.TLS, vfs, name, file uintptr, flags int32, outFlags uintptr) int32
	deleteFunc func(tls *libc.TLS, vfs, name uintptr, syncDir int32) int32
	closeFunc  func(tls *libc.TLS, file uintptr) int32
	writeFunc  func(tls *libc.TLS, file, buf uintptr, n int32, off int64) int32
	truncFunc  func(tls *libc.TLS, file uintptr, size int64) int32
	syncFunc   func(tls *libc.TLS, file uintptr, flags int32) int32
)

// pointer is an address that C gave us.
func pointer(p uintptr) unsafe.Pointer { return *(*unsafe.Pointer)(unsafe.Pointer(&p)) }

// word is the pointer-sized field at an offset of a C structure.
func word(p uintptr, offset uintptr) *uintptr { return (*uintptr)(pointer(p + offset)) }

// method calls through a C function pointer, which is a Go function's value.
func method[F any](p uintptr) F { return *(*F)(unsafe.Pointer(&p)) }

// address is the other way round. f must be a top-level function: nothing else
// keeps it.
func address[F any](f F) uintptr { return *(*uintptr)(unsafe.Pointer(&f)) }

// registerVFS makes a VFS of this name whose files are recorded by d. It stays
// until the process ends.
func registerVFS(name string, d *faultDisk) {
	tls := libc.NewTLS()
	defer tls.Close()
	original := lib.Xsqlite3_vfs_find(tls, 0)
	v := libc.Xmalloc(tls, vfsSize)
	libc.Xmemcpy(tls, v, original, vfsSize)
	zName, err := libc.CString(name)
	if err != nil {
		panic(err)
	}
	*word(v, vfsName) = zName
	*word(v, vfsOpen) = address(openFunc(open))
	*word(v, vfsDelete) = address(deleteFunc(remove))
	d.original = original
	mu.Lock()
	disks[v] = d
	mu.Unlock()
	if rc := lib.Xsqlite3_vfs_register(tls, v, 0); rc != 0 {
		panic(rc)
	}
}

func open(tls *libc.TLS, vfs, name, f uintptr, flags int32, outFlags uintptr) int32 {
	mu.Lock()
	d := disks[vfs]
	mu.Unlock()
	rc := method[openFunc](*word(d.original, vfsOpen))(tls, d.original, name, f, flags, outFlags)
	methods := *word(f, 0)
	if rc != 0 || methods == 0 || name == 0 {
		return rc
	}
	own := libc.Xmalloc(tls, methodsSize)
	libc.Xmemcpy(tls, own, methods, methodsSize)
	*word(own, methodClose) = address(closeFunc(closeFile))
	*word(own, methodWrite) = address(writeFunc(write))
	*word(own, methodTrunc) = address(truncFunc(truncate))
	*word(own, methodSync) = address(syncFunc(sync_))
	*word(f, 0) = own
	mu.Lock()
	files[f] = &file{disk: d, name: filepath.Base(libc.GoString(name)), methods: methods}
	mu.Unlock()
	return rc
}

func remove(tls *libc.TLS, vfs, name uintptr, syncDir int32) int32 {
	mu.Lock()
	d := disks[vfs]
	mu.Unlock()
	rc := method[deleteFunc](*word(d.original, vfsDelete))(tls, d.original, name, syncDir)
	if rc == 0 {
		d.record(diskEvent{Op: opRemove, File: filepath.Base(libc.GoString(name))})
	}
	return rc
}

func find(f uintptr) *file {
	mu.Lock()
	defer mu.Unlock()
	return files[f]
}

func closeFile(tls *libc.TLS, f uintptr) int32 {
	x := find(f)
	mu.Lock()
	delete(files, f)
	mu.Unlock()
	libc.Xfree(tls, *word(f, 0))
	*word(f, 0) = x.methods
	return method[closeFunc](*word(x.methods, methodClose))(tls, f)
}

func write(tls *libc.TLS, f, buf uintptr, n int32, off int64) int32 {
	x := find(f)
	if rc := x.disk.fault(opWrite, x.name); rc != 0 {
		return rc
	}
	rc := method[writeFunc](*word(x.methods, methodWrite))(tls, f, buf, n, off)
	if rc == 0 {
		x.disk.record(diskEvent{Op: opWrite, File: x.name, Off: off, Data: append([]byte(nil), libc.GoBytes(buf, int(n))...)})
	}
	return rc
}

func truncate(tls *libc.TLS, f uintptr, size int64) int32 {
	x := find(f)
	if rc := x.disk.fault(opTruncate, x.name); rc != 0 {
		return rc
	}
	rc := method[truncFunc](*word(x.methods, methodTrunc))(tls, f, size)
	if rc == 0 {
		x.disk.record(diskEvent{Op: opTruncate, File: x.name, Off: size})
	}
	return rc
}

func sync_(tls *libc.TLS, f uintptr, flags int32) int32 {
	x := find(f)
	if rc := x.disk.fault(opSync, x.name); rc != 0 {
		x.disk.record(diskEvent{Op: opFailedSync, File: x.name})
		return rc
	}
	rc := method[syncFunc](*word(x.methods, methodSync))(tls, f, flags)
	if rc == 0 {
		x.disk.record(diskEvent{Op: opSync, File: x.name})
	}
	return rc
}
