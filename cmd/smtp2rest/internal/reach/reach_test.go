package reach

import (
	"io"
	"os"
	"testing"
)

// The words that help; root, who may run this test, is denied nothing.
func TestDenied(t *testing.T) {
	err := denied("/var/lib/smtp2rest", &os.PathError{Op: "open", Path: "/var/lib/smtp2rest/lock", Err: os.ErrPermission})
	if want := "this user may not use /var/lib/smtp2rest; try again with sudo, or as the daemon's user: open /var/lib/smtp2rest/lock: permission denied"; err.Error() != want {
		t.Errorf("got %q", err)
	}
	if err := denied("x", io.ErrClosedPipe); err != io.ErrClosedPipe {
		t.Errorf("another error became %v", err)
	}
}
