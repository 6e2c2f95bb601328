package terminal

import (
	"os"

	"golang.org/x/sys/windows"
)

// Columns is the width of a console, or 0 when f is none.
func Columns(f *os.File) int {
	var info windows.ConsoleScreenBufferInfo
	if err := windows.GetConsoleScreenBufferInfo(windows.Handle(f.Fd()), &info); err != nil {
		return 0
	}
	return int(info.Window.Right-info.Window.Left) + 1
}
