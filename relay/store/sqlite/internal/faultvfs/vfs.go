// Package faultvfs puts itself between SQLite and the operating system, for
// tests: it can make writes and syncs fail, and it records both, so that a
// test can put together what a disk might hold after a loss of power.
//
// The driver has no way to write a VFS in Go, so this one is a copy of
// SQLite's own with a few methods replaced, at the C structures' offsets.
package faultvfs

import (
	"path/filepath"
	"sync"
	"unsafe"

	"modernc.org/libc"
	lib "modernc.org/sqlite/lib"
)

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
	disks = map[uintptr]*Disk{} // by their sqlite3_vfs
	files = map[uintptr]*file{} // by their sqlite3_file
)

type file struct {
	disk    *Disk
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

// Register makes a VFS of this name whose files are recorded by d. It stays
// until the process ends.
func Register(name string, d *Disk) {
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
		d.record(Event{Op: Remove, File: filepath.Base(libc.GoString(name))})
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
	if rc := x.disk.fault(Write, x.name); rc != 0 {
		return rc
	}
	rc := method[writeFunc](*word(x.methods, methodWrite))(tls, f, buf, n, off)
	if rc == 0 {
		x.disk.record(Event{Op: Write, File: x.name, Off: off, Data: append([]byte(nil), libc.GoBytes(buf, int(n))...)})
	}
	return rc
}

func truncate(tls *libc.TLS, f uintptr, size int64) int32 {
	x := find(f)
	if rc := x.disk.fault(Truncate, x.name); rc != 0 {
		return rc
	}
	rc := method[truncFunc](*word(x.methods, methodTrunc))(tls, f, size)
	if rc == 0 {
		x.disk.record(Event{Op: Truncate, File: x.name, Off: size})
	}
	return rc
}

func sync_(tls *libc.TLS, f uintptr, flags int32) int32 {
	x := find(f)
	if rc := x.disk.fault(Sync, x.name); rc != 0 {
		x.disk.record(Event{Op: FailedSync, File: x.name})
		return rc
	}
	rc := method[syncFunc](*word(x.methods, methodSync))(tls, f, flags)
	if rc == 0 {
		x.disk.record(Event{Op: Sync, File: x.name})
	}
	return rc
}
