//go:build unix

package logs

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

func deviceAndInode(f *os.File) string {
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return ""
	}
	return fmt.Sprintf("%d:%d", st.Dev, st.Ino)
}
