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
	ctx, stop := untilSignal(context.Background())
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

// untilSignal returns a context that ends at the first SIGINT or SIGTERM. By
// then a second one has its usual effect, so that who is impatient is not made
// to wait for the drain; signal.NotifyContext would swallow it.
func untilSignal(parent context.Context) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(parent)
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	go func() {
		select {
		case <-signals:
		case <-ctx.Done():
		}
		signal.Stop(signals)
		cancel()
	}()
	return ctx, cancel
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
