//go:build unix

package pgtest

import (
	"os"
	"os/user"
	"strconv"
	"syscall"
)

// account is whom the server runs as: PostgreSQL refuses to run as root.
func account() (uid, gid int, other bool) {
	if os.Getuid() != 0 {
		return 0, 0, false
	}
	for _, name := range []string{"postgres", "nobody"} {
		if u, err := user.Lookup(name); err == nil {
			uid, _ = strconv.Atoi(u.Uid)
			gid, _ = strconv.Atoi(u.Gid)
			return uid, gid, true
		}
	}
	return 65534, 65534, true
}

// give makes a directory the server's own.
func give(dir string) error {
	if uid, gid, other := account(); other {
		return os.Chown(dir, uid, gid)
	}
	return nil
}

func attributes() *syscall.SysProcAttr {
	a := &syscall.SysProcAttr{Setpgid: true} // so that an interrupt at the terminal is the test's alone
	if uid, gid, other := account(); other {
		a.Credential = &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
	}
	return a
}

// immediately is PostgreSQL's immediate shutdown: no transaction is waited for, and
// the next start recovers as after a crash.
func immediately() os.Signal { return syscall.SIGQUIT }
