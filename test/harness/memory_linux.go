package harness

import (
	"os"

	"golang.org/x/sys/unix"
)

// inMemory has the tests of this process, and the programs that they run, keep their files
// in Memory, where nothing waits for a disk. They find the same either way, because no test
// can cut the power of a real disk. It does nothing where TMPDIR is set, and where Memory
// is small (Docker's has 64 MiB) or cannot hold programs.
func inMemory() {
	const room = 2 << 30
	var st unix.Statfs_t
	if os.Getenv("TMPDIR") != "" || unix.Statfs(Memory, &st) != nil || st.Type != unix.TMPFS_MAGIC || st.Flags&unix.ST_NOEXEC != 0 {
		return
	}
	if st.Bavail*uint64(st.Bsize) >= room && unix.Access(Memory, unix.W_OK) == nil {
		_ = os.Setenv("TMPDIR", Memory)
	}
}
