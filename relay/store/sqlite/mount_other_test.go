//go:build !linux

package sqlite

import (
	"testing"
)

func onTmpfs(t *testing.T, _ string) string {
	t.Helper()
	t.Skip("mounting a small file system takes Linux")
	return ""
}

func remount(*testing.T, string, bool) {}
