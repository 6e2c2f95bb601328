//go:build unix

package owner_test

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/smtp2rest/smtp2rest/cmd/smtp2rest/internal/owner"
)

const uid = 54321

// TestMain is also what a test starts as a process of its own.
func TestMain(m *testing.M) {
	if dir := os.Getenv("OWNER_TEST_DIR"); dir != "" {
		if err := asOwner(dir); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// asOwner looks at what it may do after Become.
func asOwner(dir string) error {
	if err := owner.Become(dir); err != nil {
		return err
	}
	if os.Geteuid() != uid || os.Getegid() != uid {
		return fmt.Errorf("it is %d of %d", os.Geteuid(), os.Getegid())
	}
	if err := os.WriteFile(filepath.Join(dir, "link"), []byte("changed"), 0o600); !errors.Is(err, fs.ErrPermission) {
		return fmt.Errorf("writing through a link to a file of root: %v", err)
	}
	return os.WriteFile(filepath.Join(dir, "new"), nil, 0o600)
}

func TestBecome(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("only root can become somebody else")
	}
	private := filepath.Join(t.TempDir(), "private") // as systemd has it for DynamicUser=yes
	dir, victim := filepath.Join(private, "data"), filepath.Join(t.TempDir(), "victim")
	for _, err := range []error{os.MkdirAll(dir, 0o700), os.Chown(dir, uid, uid), os.WriteFile(victim, []byte("whole"), 0o600), os.Symlink(victim, filepath.Join(dir, "link"))} {
		if err != nil {
			t.Fatal(err)
		}
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	run := func() (string, error) {
		open := exec.Command(self)
		open.Env = append(os.Environ(), "OWNER_TEST_DIR="+dir)
		out, err := open.CombinedOutput()
		return string(out), err
	}
	out, err := run()
	if strings.Contains(out, "built with cgo") { // as the race detector has it: it says so, and reaches only what its owner does
		for at := private; at != os.TempDir() && at != "/"; at = filepath.Dir(at) {
			if err := os.Chmod(at, 0o755); err != nil {
				t.Fatal(err)
			}
		}
		out, err = run()
	}
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if b, err := os.ReadFile(victim); err != nil || string(b) != "whole" {
		t.Errorf("the file of root is %q, %v", b, err)
	}
	info, err := os.Stat(filepath.Join(dir, "new"))
	if err != nil {
		t.Fatal(err)
	}
	if st := info.Sys().(*syscall.Stat_t); st.Uid != uid {
		t.Errorf("what was made belongs to %d", st.Uid)
	}
}
