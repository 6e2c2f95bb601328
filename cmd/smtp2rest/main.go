// Command smtp2rest takes mail over SMTP and sends it through the
// NexusProMail REST API. Each subcommand is a file of this package; what they
// run lives in relay/app and below.
package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // so that a second signal ends the process
	t := &terminal{
		in:    os.Stdin,
		out:   os.Stdout,
		err:   os.Stderr,
		env:   os.LookupEnv,
		color: wantsColor(os.Stdout, os.LookupEnv),
	}
	code := run(ctx, t, os.Args[1:])
	stop()
	os.Exit(code)
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
