//go:build unix

package records

import (
	"os"
	"path/filepath"
	"syscall"
	"testing"
)

func TestFileModes(t *testing.T) {
	old := syscall.Umask(0)
	defer syscall.Umask(old)
	dir := filepath.Join(t.TempDir(), "data")
	s := openTest(t, dir, Options{})
	must(t, s.durable(t.Context(), insert(event(1))))
	files, err := os.ReadDir(dir)
	must(t, err)
	for _, f := range files {
		if info, err := f.Info(); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v, %v", f.Name(), info.Mode(), err)
		}
	}
	if len(files) != 4 { // the lock, the database, its log and the log's index
		t.Errorf("%d files", len(files))
	}
}
