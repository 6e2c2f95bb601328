package sqlite

import (
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/smtp2rest/smtp2rest/relay"
	"github.com/smtp2rest/smtp2rest/relay/history"
)

// Whatever is done with the open records, SQLite's locks stay on the file: they
// are the process's, and go when the process closes any descriptor of the file
// (POSIX, fcntl). Without them another program, such as a backup, takes itself
// for the last user and deletes the write-ahead log.
func TestTheFileStaysLocked(t *testing.T) {
	s := openRecords(t, t.TempDir(), Options{})
	if !posixLocked(t, s.path) {
		t.Fatal("the test looks in the wrong place")
	}
	at := time.Now()
	m := &relay.Message{ID: relay.NewID(at), ReceivedAt: at, From: "shop@example.com", Recipients: []string{"bob@example.net"}}
	must(t, s.Write(t.Context(), history.Changes(history.NewCame(m, history.Head{}))))
	_, err := s.Forget(t.Context(), "bob@example.net", nil)
	must(t, err)
	if !posixLocked(t, s.path) {
		t.Error("forget dropped SQLite's lock")
	}
	_, err = s.Prune(t.Context(), time.Now(), 10, true)
	must(t, err)
	_, err = s.Bytes(t.Context())
	must(t, err)
	if !posixLocked(t, s.path) {
		t.Error("the lock is gone")
	}
}

// locked reports whether this process has a POSIX lock on the file.
func posixLocked(t *testing.T, path string) bool {
	t.Helper()
	var st syscall.Stat_t
	must(t, syscall.Stat(path, &st))
	locks, err := os.ReadFile("/proc/locks")
	must(t, err)
	for line := range strings.Lines(string(locks)) {
		// 1: POSIX  ADVISORY  READ 24468 fe:00:9980792 1073741826 1073742335
		if f := strings.Fields(line); len(f) > 5 && f[1] == "POSIX" && f[4] == fmt.Sprint(os.Getpid()) &&
			strings.HasSuffix(f[5], fmt.Sprintf(":%d", st.Ino)) {
			return true
		}
	}
	return false
}
