//go:build unix

package terminal

import (
	"os"

	"golang.org/x/sys/unix"
)

// Columns is the width of a terminal, or 0 when f is none. A device such as
// /dev/null is none.
func Columns(f *os.File) int {
	size, err := unix.IoctlGetWinsize(int(f.Fd()), unix.TIOCGWINSZ)
	switch {
	case err != nil:
		return 0
	case size.Col == 0: // a terminal that does not know, as of expect(1)
		return 80
	}
	return int(size.Col)
}
