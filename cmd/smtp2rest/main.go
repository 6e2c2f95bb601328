// Command smtp2rest takes mail over SMTP and sends it through the
// NexusProMail REST API. Each subcommand is a file of this package; what they
// run lives in relay/app and below.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"golang.org/x/sys/unix"
)

func main() {
	t := &terminal{
		in:      os.Stdin,
		out:     os.Stdout,
		err:     os.Stderr,
		name:    os.Args[0],
		env:     os.LookupEnv,
		service: daemonConfig,
		color:   wantsColor(os.Stdout, os.LookupEnv),
		width:   columns(os.Stdout),
		asks:    columns(os.Stdin) > 0,
	}
	os.Exit(run(untilSignal(), t, calledAs(os.Args)))
}

// untilSignal returns a context that ends at the first signal to stop. Ctrl-C
// after that ends the process: somebody waits and has lost patience. A second
// SIGTERM does not, because timeout(1) and some supervisors send two.
func untilSignal() context.Context {
	ctx, stop := context.WithCancel(context.Background())
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	go func() {
		<-signals
		stop()
		for s := range signals {
			if s == os.Interrupt {
				os.Exit(exitFailed)
			}
		}
	}()
	return ctx
}

// wantsColor is true on a terminal whose user did not ask for plain text
// (https://no-color.org).
func wantsColor(f *os.File, env func(string) (string, bool)) bool {
	if v, set := env("NO_COLOR"); set && v != "" {
		return false
	}
	if v, _ := env("TERM"); v == "dumb" {
		return false
	}
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}

// columns is the width of a terminal, or 0 when f is none. A device such as
// /dev/null is none.
func columns(f *os.File) int {
	size, err := unix.IoctlGetWinsize(int(f.Fd()), unix.TIOCGWINSZ)
	switch {
	case err != nil:
		return 0
	case size.Col == 0: // a terminal that does not know, as of expect(1)
		return 80
	}
	return int(size.Col)
}
