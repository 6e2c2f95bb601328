package cli

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/smtp2rest/smtp2rest/cmd/smtp2rest/internal/terminal"
	"github.com/smtp2rest/smtp2rest/internal/load"
)

// benchFlags are what is said of a run beside load.Options.
type benchFlags struct {
	kind, api, smtp string
	insecure        bool
	delay, patience time.Duration
	pid             int
}

func benchCommand(t *terminal.Terminal) *cobra.Command {
	c := &cobra.Command{
		Use:   "bench ADDRESS",
		Short: "Measure how much mail an SMTP server takes.",
		Long: `Sends mail to any SMTP server by many connections, and says how many mails it took in
a second and how long each took. With --api or --smtp-sink it also plays what the server
hands the mail on to, and checks that each mail answered 250 arrived once for each
recipient. Let the server hand on to nothing else: it would send all this mail. So the
first mail is sent alone, and no more before it has arrived.

With --rate, mails are due at fixed times, and the time of a mail begins when it is due:
a server that stops for a second makes all mails slow that were due in that second. What
was due and could not be sent before the end is counted with the time until then.
Without it, each client sends its next mail when the last one was answered.

--mail is text1k, alt20k (text and HTML), att1m (an attachment), or a file; in a file,
"smtpbench-0000000000000000" becomes the number of each mail, by which it is recognised.
It fails if mail was refused, lost or repeated.`,
		Example: terminal.Examples(
			"smtp2rest bench 127.0.0.1:2525 --clients 50 --time 30s",
			"smtp2rest bench 127.0.0.1:2525 --api 127.0.0.1:8080 --pid 4711",
			"smtp2rest bench 127.0.0.1:2525 --rate 500 --per-connection 1 --tls starttls --insecure",
			"smtp2rest bench 127.0.0.1:25 --smtp-sink 127.0.0.1:2526 --count 10000 --json",
		),
		Args: terminal.Args(1, 1, "name the address of the server, such as 127.0.0.1:2525"),
	}
	fs := c.Flags()
	var o load.Options
	var f benchFlags
	fs.IntVar(&o.Clients, "clients", 10, "the `number` of clients at once")
	fs.DurationVar(&o.Time, "time", 10*time.Second, "how long to send")
	fs.IntVar(&o.Count, "count", 0, "the `number` of mails to send, instead of --time")
	fs.Float64Var(&o.Rate, "rate", 0, "the `number` of mails a second; 0: as many as are answered")
	fs.IntVar(&o.PerConnection, "per-connection", 0, "the `number` of mails on a connection; 0: all")
	fs.BoolVar(&o.Pipeline, "pipeline", false, "send MAIL, RCPT and DATA together")
	fs.StringVar(&o.Security, "tls", load.Plain, "none, starttls or tls, a `way` to connect")
	fs.BoolVar(&f.insecure, "insecure", false, "take any certificate")
	fs.StringVar(&o.From, "from", "bench@example.com", "the sender's `address`")
	fs.StringVar(&o.To, "to", "bench@example.net", "the first recipient's `address`; others have a number behind its name")
	fs.IntVar(&o.Recipients, "recipients", 1, "the `number` of recipients of each mail")
	fs.StringVar(&f.kind, "mail", "alt20k", "the `kind` of mail, or a file")
	fs.StringVar(&f.api, "api", "", "an `address` at which to play the API, at any path")
	fs.StringVar(&f.smtp, "smtp-sink", "", "an `address` at which to play an SMTP server")
	fs.DurationVar(&f.delay, "delay", 0, "the `time` that the API or SMTP server takes for an answer")
	fs.DurationVar(&f.patience, "patience", 10*time.Second, "the longest `time` without an arrival, before what is missing counts as lost")
	fs.IntVar(&f.pid, "pid", 0, "the `number` of the server's process, to say what it used (Linux)")
	asJSON := terminal.DeclareJSON(fs)
	c.RunE = func(cmd *cobra.Command, args []string) error {
		o.Address = args[0]
		if f.api == "" && f.smtp == "" {
			fmt.Fprintf(t.Err, "note: without --api or --smtp-sink, whatever %s hands mail on to gets all of it\n", o.Address)
		}
		report, err := f.run(cmd.Context(), o)
		if err != nil {
			return err
		}
		if *asJSON {
			err = terminal.PrintJSON(t.Out, report)
		} else {
			err = report.print(t)
		}
		if a := report.Arrivals; len(report.Failures) > 0 || a != nil && a.Missing+a.Repeated > 0 {
			return errors.Join(err, &terminal.ExitError{Code: terminal.ExitFailed})
		}
		return err
	}
	return c
}

func (f benchFlags) run(ctx context.Context, o load.Options) (*benchReport, error) {
	if f.api != "" && f.smtp != "" {
		return nil, terminal.Usagef("--api and --smtp-sink exclude each other")
	}
	var err error
	if o.Mail, err = f.mail(o); err != nil {
		return nil, err
	}
	o.Certificates = &tls.Config{InsecureSkipVerify: f.insecure}
	if err := o.Check(); err != nil {
		return nil, terminal.Usagef("%s", err)
	}
	var sink *load.Sink
	if address := cmp.Or(f.api, f.smtp); address != "" {
		if !o.Mail.Marked() {
			return nil, terminal.Usagef("--mail has no smtpbench-0000000000000000, without which its copies cannot be told apart")
		}
		if sink, err = load.NewSink(load.SinkOptions{Address: address, SMTP: f.smtp != "", Delay: f.delay}); err != nil {
			return nil, err
		}
		defer sink.Close()
		if err := f.first(ctx, o, sink); err != nil {
			return nil, err
		}
	}
	var before load.Usage
	if f.pid != 0 {
		if before, err = load.UsageOf(f.pid); err != nil {
			return nil, err
		}
	}
	result, err := load.Run(ctx, o)
	if err != nil {
		return nil, err
	}
	report := newBenchReport(result)
	if f.pid != 0 {
		now, err := load.UsageOf(f.pid)
		if err != nil {
			return nil, err
		}
		report.use(now.Since(before))
	}
	if sink != nil {
		a := sink.Check(ctx, result, f.patience)
		report.Arrivals = &a
	}
	return report, nil
}

// first sends one mail alone. A server that hands on to something else, and be it the
// real API, shall not get all the others.
func (f benchFlags) first(ctx context.Context, o load.Options, sink *load.Sink) error {
	o.Clients, o.Count, o.Rate = 1, 1, 0
	result, err := load.Run(ctx, o)
	if err != nil {
		return err
	}
	if result.Accepted == 1 && sink.Check(ctx, result, f.patience).Missing > 0 {
		return fmt.Errorf("the first mail was accepted and did not arrive at %s within %s, so no more were sent: does %s hand on to something else? --patience waits longer", sink.Address(), f.patience, o.Address)
	}
	return nil
}

func (f benchFlags) mail(o load.Options) (load.Mail, error) {
	if slices.Contains(load.Kinds(), f.kind) {
		return load.Typical(f.kind, o.From, o.To)
	}
	text, err := os.ReadFile(f.kind)
	if err != nil {
		return load.Mail{}, terminal.Usagef("--mail is %v, or a file: %v", load.Kinds(), err)
	}
	return load.NewMail(text), nil
}

// benchReport is what --json prints.
type benchReport struct {
	Accepted uint64         `json:"accepted"`
	NotSent  int            `json:"not_sent,omitempty"` // though they were due
	Failures map[string]int `json:"failures,omitempty"` // by their words
	Seconds  float64        `json:"seconds"`
	Rate     float64        `json:"mails_per_second"`
	Wait     benchWait      `json:"wait_ms"`
	Arrivals *load.Arrivals `json:"arrivals,omitempty"`
	Process  *benchProcess  `json:"process,omitempty"`
}

// benchWait is how long mails took, in milliseconds.
type benchWait struct {
	P50  float64 `json:"p50"`
	P90  float64 `json:"p90"`
	P99  float64 `json:"p99"`
	P999 float64 `json:"p99_9"`
	Max  float64 `json:"max"`
}

// benchProcess is what the server used.
type benchProcess struct {
	CPU      float64 `json:"cpu_ms_per_mail"`
	Resident int64   `json:"resident_bytes"`
	Peak     int64   `json:"peak_bytes"`
	Read     int64   `json:"read_bytes"`
	Written  int64   `json:"written_bytes"`
}

func newBenchReport(r *load.Result) *benchReport {
	ms := func(share float64) float64 { return float64(r.Wait(share)) / float64(time.Millisecond) }
	return &benchReport{
		Accepted: r.Accepted, NotSent: r.NotSent, Failures: r.Failures, Seconds: r.Took.Seconds(), Rate: r.Rate(),
		Wait: benchWait{ms(.5), ms(.9), ms(.99), ms(.999), ms(1)},
	}
}

func (b *benchReport) use(u load.Usage) {
	mails := max(float64(b.Accepted), 1)
	b.Process = &benchProcess{float64(u.CPU) / float64(time.Millisecond) / mails, u.Resident, u.Peak, u.Read, u.Written}
}

func (b *benchReport) print(t *terminal.Terminal) error {
	_, err := fmt.Fprintf(t.Out, "%d mails accepted in %.1f s, %.0f a second\ntime of a mail: half %.1f ms, 90 %% %.1f, 99 %% %.1f, 99.9 %% %.1f, all %.1f\n",
		b.Accepted, b.Seconds, b.Rate, b.Wait.P50, b.Wait.P90, b.Wait.P99, b.Wait.P999, b.Wait.Max)
	if b.NotSent > 0 {
		fmt.Fprintf(t.Out, "%d were due and not sent, because no client was free: their time is that until the end\n", b.NotSent)
	}
	for _, why := range slices.Sorted(maps.Keys(b.Failures)) {
		fmt.Fprintf(t.Out, "%d failed: %s\n", b.Failures[why], why)
	}
	if a := b.Arrivals; a != nil {
		fmt.Fprintf(t.Out, "arrived as answered: %d; lost: %d; repeated: %d; arrived without a 250: %d; of other runs: %d\n", a.Exact, a.Missing, a.Repeated, a.Ghosts, a.Unmarked)
	}
	if p := b.Process; p != nil {
		fmt.Fprintf(t.Out, "the server's process: %.3f ms of processor time a mail; %d MiB, %d at most; %d MiB read, %d written\n", p.CPU, p.Resident>>20, p.Peak>>20, p.Read>>20, p.Written>>20)
	}
	return err
}
