//go:build unix

package records

import (
	"errors"
	"fmt"
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
		for _, name := range []string{FileName, FileName + "-wal", FileName + "-shm", FileName + "-journal"} {
			for _, existing := range []bool{true, false} {
				t.Run(fmt.Sprint(kind, " ", name, " ", existing), func(t *testing.T) {
					dir := t.TempDir()
					t.Chdir(dir) // the name of a socket must be short
					s, err := Open(Options{Dir: ".", Log: quiet()})
					must(t, err)
					must(t, s.Close())
					if err := os.Remove(name); err != nil && !errors.Is(err, os.ErrNotExist) {
						t.Fatal(err)
					}
					must(t, plant(name))
					opened := make(chan error, 1)
					go func() {
						s, err := Open(Options{Dir: ".", Log: quiet(), Existing: existing})
						if err == nil {
							err = s.Close()
						}
						opened <- err
					}()
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
