package app

import "golang.org/x/sys/unix"

// endsWith is what ends the files in a directory, "" for nothing or unknown.
func endsWith(dir string) string {
	var st unix.Statfs_t
	if unix.Statfs(dir, &st) != nil {
		return ""
	}
	return volatile(int64(st.Type))
}

// volatile is what ends files of that kind of file system (statfs(2)), "" for
// none.
func volatile(kind int64) string {
	switch kind {
	case unix.TMPFS_MAGIC, unix.RAMFS_MAGIC:
		return "this machine's next start, because it lies in memory (tmpfs)"
	case unix.OVERLAYFS_SUPER_MAGIC:
		return "this container, because it lies on the container's own layer (overlayfs)"
	}
	return ""
}
