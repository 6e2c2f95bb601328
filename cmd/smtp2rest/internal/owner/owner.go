// Package owner gives up the rights of root for those of a data directory's owner. The
// owner can put symbolic links into the directory: a command that opened its files as
// root would write wherever they lead.
package owner

// Become makes this process run as the owner of a directory, if it runs as root and
// the directory is not root's. There is no way back. It does nothing on systems without
// root.
func Become(dir string) error { return become(dir) }
