//go:build unix

package sqlite

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestOnlyFilesAreOpened: what whoever owns a data directory put in the place of
// a file is refused by its name. A pipe would be waited for, for ever, by root's
// commands as well.
func TestOnlyFilesAreOpened(t *testing.T) {
	for kind, plant := range map[string]func(path string) error{
		"a symbolic link": func(path string) error { return os.Symlink(path+".elsewhere", path) },
		"a pipe":          func(path string) error { return syscall.Mkfifo(path, 0o600) },
		"a socket": func(path string) error {
			ln, err := net.Listen("unix", path)
			if err == nil {
				t.Cleanup(func() { _ = ln.Close() })
			}
			return err
		},
		"a directory": func(path string) error { return os.Mkdir(path, 0o700) },
	} {
		for _, name := range []string{QueueFile, QueueFile + "-wal", QueueFile + "-shm", QueueFile + "-journal", RecordsFile, RecordsFile + "-wal", RecordsFile + "-shm", RecordsFile + "-journal"} {
			for _, existing := range []bool{true, false} {
				t.Run(fmt.Sprint(kind, " ", name, " ", existing), func(t *testing.T) {
					dir := t.TempDir()
					t.Chdir(dir) // the name of a socket must be short
					open := func(o Options) error {
						if strings.HasPrefix(name, RecordsFile) {
							s, err := OpenRecords(o)
							return closed(s, err)
						}
						s, err := OpenQueue(o)
						return closed(s, err)
					}
					must(t, open(Options{Dir: ".", Log: quiet()}))
					if err := os.Remove(name); err != nil && !errors.Is(err, os.ErrNotExist) {
						t.Fatal(err)
					}
					must(t, plant(name))
					opened := make(chan error, 1)
					go func() { opened <- open(Options{Dir: ".", Log: quiet(), Existing: existing}) }()
					select {
					case err := <-opened:
						if err == nil || !strings.Contains(err.Error(), name+" is "+kind) {
							t.Errorf("it says %v", err)
						}
					case <-time.After(20 * time.Second):
						t.Fatal("it waits")
					}
				})
			}
		}
	}
}

// closed closes what was opened.
func closed(s io.Closer, err error) error {
	if err == nil {
		err = s.Close()
	}
	return err
}

// A body in the spool as well.
func TestOnlyBodiesAreFiles(t *testing.T) {
	dir := t.TempDir()
	s := openQueue(t, dir, Options{})
	m := testMail(spoolAbove + 1)
	must(t, s.Enqueue(ctx, m))
	must(t, s.spool.fs.Names(s.spool.dir, func(name string) error {
		name = s.spool.path(name)
		return errors.Join(os.Remove(name), syscall.Mkfifo(name, 0o600))
	}))
	if _, err := s.Raw(ctx, m.Message.ID); err == nil || !strings.Contains(err.Error(), " is a pipe; it must be a file") {
		t.Errorf("it says %v", err)
	}
	must(t, s.Close())
	must(t, os.RemoveAll(s.spool.dir))
	must(t, syscall.Mkfifo(s.spool.dir, 0o700))
	must(t, os.Remove(s.path))
	if _, err := OpenQueue(Options{Dir: dir, Log: quiet()}); err == nil || !strings.Contains(err.Error(), "spool") {
		t.Errorf("it says %v", err)
	}
}
