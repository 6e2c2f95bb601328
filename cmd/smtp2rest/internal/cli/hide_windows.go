package cli

import (
	"os"

	"golang.org/x/sys/windows"
)

// hideInput keeps a console from showing what is typed until show is called.
func hideInput(tty *os.File) (show func(), err error) {
	console := windows.Handle(tty.Fd())
	var before uint32
	if err := windows.GetConsoleMode(console, &before); err != nil {
		return nil, err
	}
	if err := windows.SetConsoleMode(console, before&^windows.ENABLE_ECHO_INPUT); err != nil {
		return nil, err
	}
	return func() { _ = windows.SetConsoleMode(console, before) }, nil
}
