// Package owner drops root privileges and continues as the owner of the data directory.
// The owner can put symbolic links into the directory, and a command that opened its files
// as root would write wherever they lead.
package owner

// Become makes this process run as the owner of a directory, if it runs as root and the
// directory belongs to another user. That cannot be undone. It does nothing on systems
// without root.
func Become(dir string) error { return become(dir) }
