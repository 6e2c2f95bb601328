package main

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/smtp2rest/smtp2rest/cmd/smtp2rest/internal/cli"
	"github.com/smtp2rest/smtp2rest/cmd/smtp2rest/internal/terminal"
	"golang.org/x/sys/unix"
)

// At a terminal nothing of what is typed is shown, and the terminal shows it
// again afterwards.
func TestHashPasswordAtATerminal(t *testing.T) {
	master, tty := openTerminal(t)
	for _, tt := range []struct {
		typed string
		good  bool
	}{{"hunter2\nhunter2\n", true}, {"hunter2\nhunter3\n", false}} {
		if _, err := master.WriteString(tt.typed); err != nil {
			t.Fatal(err)
		}
		var out, prompt strings.Builder
		term := &terminal.Terminal{In: tty, Out: &out, Err: &prompt, Env: os.LookupEnv, Asks: true}
		code := cli.Run(t.Context(), term, []string{"hash-password"})
		if (code == terminal.ExitOK) != tt.good || strings.HasPrefix(out.String(), "$2a$") != tt.good || !strings.Contains(prompt.String(), "Password: \nOnce more: \n") {
			t.Errorf("%q: exit %d, %q, %q", tt.typed, code, &out, &prompt)
		}
	}
	state, err := unix.IoctlGetTermios(int(tty.Fd()), unix.TCGETS)
	if err != nil || state.Lflag&unix.ECHO == 0 {
		t.Errorf("the terminal shows nothing: %v", err)
	}
}

func openTerminal(t *testing.T) (master, tty *os.File) {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Skipf("there are no terminals here: %v", err)
	}
	t.Cleanup(func() { _ = master.Close() })
	n, err := unix.IoctlGetInt(int(master.Fd()), unix.TIOCGPTN)
	if err == nil {
		err = unix.IoctlSetPointerInt(int(master.Fd()), unix.TIOCSPTLCK, 0)
	}
	if err != nil {
		t.Fatal(err)
	}
	tty, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Skipf("there are no terminals here: %v", err)
	}
	t.Cleanup(func() { _ = tty.Close() })
	return master, tty
}
