package cli

import (
	"context"
	"os"
	"os/signal"
	"syscall"

	"github.com/smtp2rest/smtp2rest/cmd/smtp2rest/internal/cli/sendmail"
	"github.com/smtp2rest/smtp2rest/cmd/smtp2rest/internal/reach"
	"github.com/smtp2rest/smtp2rest/cmd/smtp2rest/internal/terminal"
)

// Main runs the program as it was called, and returns its exit code.
// release is the version that the build was given, or "".
func Main(release string) int {
	t := &terminal.Terminal{
		In:      os.Stdin,
		Out:     os.Stdout,
		Err:     os.Stderr,
		Name:    os.Args[0],
		Version: versionOf(release),
		Env:     os.LookupEnv,
		Service: reach.DaemonConfig,
		Color:   terminal.WantsColor(os.Stdout, os.LookupEnv),
		Width:   terminal.Columns(os.Stdout),
		Asks:    terminal.Columns(os.Stdin) > 0,
	}
	return Run(untilSignal(), t, sendmail.CalledAs(os.Args))
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
		signal.Reset(os.Interrupt) // to what it does by itself
	}()
	return ctx
}
