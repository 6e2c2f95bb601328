// Package owner gives up the rights of root for those of a data directory's
// owner. Whoever owns the directory can put symbolic links into it: a command
// that opened its files as root would write wherever they lead to.
package owner

// Become makes this process the owner of a directory, if it is root's and the
// directory is not. There is no way back.
func Become(dir string) error { return become(dir) }
