//go:build unix

package db

import (
	"os"
	"path/filepath"
	"syscall"
	"testing"
)

// TestLockIsAFile: whoever owns a data directory cannot have another's file
// overwritten with the lock of a command that root runs.
func TestLockIsAFile(t *testing.T) {
	for name, plant := range map[string]func(victim, lock string) error{
		"a symbolic link": os.Symlink,
		"a link":          os.Link,
		"a pipe":          func(_, lock string) error { return syscall.Mkfifo(lock, 0o600) },
		"a directory":     func(_, lock string) error { return os.Mkdir(lock, 0o700) },
	} {
		for kind, lock := range map[string]func(string) (*os.File, error){"Lock": Lock, "LockExisting": LockExisting} {
			t.Run(name+" "+kind, func(t *testing.T) {
				dir := t.TempDir()
				victim, path := filepath.Join(dir, "victim"), filepath.Join(dir, "lock")
				if err := os.WriteFile(victim, []byte("whole"), 0o600); err != nil {
					t.Fatal(err)
				}
				if err := plant(victim, path); err != nil {
					t.Fatal(err)
				}
				if f, err := lock(path); err == nil {
					_ = f.Close()
					t.Error("it was locked")
				}
				if b, err := os.ReadFile(victim); err != nil || string(b) != "whole" {
					t.Errorf("the other file is %q, %v", b, err)
				}
			})
		}
	}
}
