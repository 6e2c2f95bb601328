//go:build unix

package owner

import (
	"fmt"
	"io/fs"
	"os"
	"syscall"
)

// Of returns the user and the group to whom a file belongs. It is false where the system
// knows none.
func Of(info fs.FileInfo) (uid, gid int, ok bool) {
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return 0, 0, false
	}
	return int(st.Uid), int(st.Gid), true
}

func become(dir string) error {
	if os.Geteuid() != 0 {
		return nil
	}
	info, err := os.Stat(dir)
	if err != nil {
		return err
	}
	uid, gid, ok := Of(info)
	if !ok || uid == 0 {
		return nil
	}
	if err := switchUser(uid, gid); err != nil {
		return fmt.Errorf("become the owner of %s: %w", dir, err)
	}
	if _, err := os.Stat(dir); err != nil {
		return fmt.Errorf("the owner of %s cannot enter its parent directories, and a binary built with cgo cannot keep root's right to do so: %w", dir, err)
	}
	return nil
}

// drop drops root privileges.
func drop(uid, gid int) error {
	if err := syscall.Setgroups([]int{gid}); err != nil {
		return err
	}
	if err := syscall.Setgid(gid); err != nil {
		return err
	}
	return syscall.Setuid(uid)
}
