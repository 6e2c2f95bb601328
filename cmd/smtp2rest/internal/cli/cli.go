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
	ctx, atOnce := untilSignal()
	ended := make(chan int, 1)
	go func() { ended <- Run(ctx, t, sendmail.CalledAs(os.Args)) }()
	select {
	case code := <-ended:
		return code
	case <-atOnce:
		return terminal.ExitFailed
	}
}

// untilSignal returns a context that ends at the first signal to stop. Ctrl-C
// after that closes atOnce: somebody waits and has lost patience. A second
// SIGTERM does not, because timeout(1) and some supervisors send two.
func untilSignal() (ctx context.Context, atOnce <-chan struct{}) {
	ctx, stop := context.WithCancel(context.Background())
	now := make(chan struct{})
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	go func() {
		<-signals
		stop()
		for s := range signals {
			if s == os.Interrupt {
				close(now)
				return
			}
		}
	}()
	return ctx, now
}
