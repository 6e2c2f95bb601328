// Command bench loads a relay with mail, and prints how many mails it takes in a second,
// how long a client waits, and how much processor time and memory that needs. It also
// runs "bare": a relay in a hundred lines, made of go-smtp, go-message and net/http,
// without a queue, limits and other features. Compare the two; the absolute figures
// depend on the machine.
//
//	go run ./scripts/bench
package main

import (
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"
)

func main() {
	if len(os.Args) > 2 && os.Args[1] == "-bare" {
		fail(serveBare(os.Args[2]))
		return
	}
	var o options
	flag.DurationVar(&o.time, "time", 5*time.Second, "how long each cell runs")
	flag.IntVar(&o.rounds, "rounds", 3, "how often each cell is run; medians are printed")
	flag.BoolVar(&o.fresh, "fresh", false, "a new connection for each mail")
	clients := flag.String("clients", "1,10,50,200", "numbers of clients at once")
	mails := flag.String("mails", "text1k,alt20k", "kinds of mail")
	flag.Parse()
	for _, word := range strings.Split(*clients, ",") {
		n, err := strconv.Atoi(word)
		fail(err)
		o.clients = append(o.clients, n)
	}
	o.mails = strings.Split(*mails, ",")
	fail(run(o))
}

func fail(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

type options struct {
	time    time.Duration
	rounds  int
	fresh   bool
	clients []int
	mails   []string
}

// cell is one row of the table.
type cell struct {
	mail    string
	clients int
	system  string
}

func run(o options) error {
	dir, err := os.MkdirTemp("", "smtp2rest-bench-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	relay := filepath.Join(dir, "smtp2rest")
	build := exec.Command("go", "build", "-trimpath", "-ldflags", "-s -w", "-o", relay, "./cmd/smtp2rest")
	if out, err := build.CombinedOutput(); err != nil {
		return fmt.Errorf("%w: %s", err, out)
	}
	sink := newSink()
	defer sink.close()

	results := map[cell][]figures{}
	var cells []cell
	for _, m := range o.mails {
		for _, n := range o.clients {
			cells = append(cells, cell{m, n, "bare"}, cell{m, n, "smtp2rest"})
		}
	}
	for range o.rounds {
		for _, i := range rand.Perm(len(cells)) {
			c := cells[i]
			f, err := measure(o, c, relay, sink)
			if err != nil {
				return fmt.Errorf("%+v: %w", c, err)
			}
			results[c] = append(results[c], f)
		}
	}
	return table(cells, results)
}

// measure starts one system and runs one load.
func measure(o options, c cell, relay string, sink *sink) (figures, error) {
	p, err := start(c.system, relay, sink.url())
	if err != nil {
		return figures{}, err
	}
	defer p.stop()
	mail, err := sample(c.mail)
	if err != nil {
		return figures{}, err
	}
	warm := load{address: p.address, clients: c.clients, fresh: o.fresh, mail: mail, time: time.Second}
	if _, err := warm.run(); err != nil {
		return figures{}, err
	}
	before, got := p.cpu(), sink.count()
	warm.time = o.time
	waits, err := warm.run()
	if err != nil {
		return figures{}, err
	}
	if n := sink.count() - got; n < len(waits) {
		return figures{}, fmt.Errorf("the API got %d calls for %d mails", n, len(waits))
	}
	return figuresOf(waits, o.time, p.cpu()-before, p.peak()), nil
}

func table(cells []cell, results map[cell][]figures) error {
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "mail\tclients\tsystem\taccepted/s\tx bare\tp50 ms\tp99 ms\tCPU ms/mail\tpeak MiB\t")
	var bare float64
	for _, c := range cells {
		f := median(results[c])
		if c.system == "bare" {
			bare = f.rate
		}
		fmt.Fprintf(w, "%s\t%d\t%s\t%.0f\t%.2f\t%.1f\t%.1f\t%.2f\t%.0f\t\n", c.mail, c.clients, c.system,
			f.rate, f.rate/bare, ms(f.p50), ms(f.p99), ms(f.cpu), f.peak)
	}
	return w.Flush()
}

func ms(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
