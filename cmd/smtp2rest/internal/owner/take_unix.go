//go:build unix && !linux

package owner

func switchUser(uid, gid int) error { return drop(uid, gid) }
