//go:build !unix

package pgtest

import (
	"os"
	"syscall"
)

func give(string) error { return nil }

func attributes() *syscall.SysProcAttr { return nil }

func immediately() os.Signal { return os.Kill }
