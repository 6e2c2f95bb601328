// Command bench compares smtp2rest with other relays, side by side: with "bare", a relay
// in a hundred lines made of go-smtp, go-message and net/http, without a queue, limits
// and other features, and with Postfix where it is there. It prints how many mails each
// takes in a second, how long a client waits, and what processor time and memory that
// needs. Compare the systems within one run; absolute figures depend on the machine.
//
//	go run ./scripts/bench
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"time"
)

func main() {
	if len(os.Args) > 2 && os.Args[1] == "-bare" {
		fail(serveBare(os.Args[2]))
		return
	}
	var o options
	flag.DurationVar(&o.time, "time", 4*time.Second, "how long each measurement runs")
	flag.IntVar(&o.rounds, "rounds", 5, "how often each is made; medians are printed")
	cells := flag.String("cells", "", "what to measure: a regular expression for names such as alt20k/50/reused")
	list := flag.Bool("list", false, "print the names and end")
	flag.StringVar(&o.binary, "binary", "", "the smtp2rest to measure; empty: build it")
	also := flag.String("also", "", "NAME=BINARY,...: other builds of smtp2rest to compare with")
	flag.StringVar(&o.postfix, "postfix", postfixTree(), "the directory in which Postfix is; empty: without it")
	flag.StringVar(&o.json, "json", "", "a file to write all figures to")
	flag.StringVar(&o.floor, "floor", "", "a file with the least ratios to bare: fail if one is below")
	flag.Parse()
	o.also = strings.FieldsFunc(*also, func(r rune) bool { return r == ',' })
	chosen, err := regexp.Compile(*cells)
	fail(err)
	for _, c := range allCells() {
		if chosen.MatchString(c.Name) {
			o.cells = append(o.cells, c)
		}
	}
	if *list || len(o.cells) == 0 {
		for _, c := range allCells() {
			fmt.Println(c.Name)
		}
		return
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	fail(run(ctx, o))
}

func fail(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

type options struct {
	time        time.Duration
	rounds      int
	cells       []cell
	binary      string
	also        []string
	postfix     string
	json, floor string
}

// cell is one thing to measure. Every system gets the same.
type cell struct {
	Name          string
	mail          string
	clients       int
	perConnection int
	recipients    int
	secure        bool   // STARTTLS from the client, HTTPS to the API
	config        string // of smtp2rest, besides the default
	durable       bool   // the API is away: the mail is only kept
}

func allCells() []cell {
	all := []cell{
		{Name: "alt20k/1/reused", clients: 1}, {Name: "alt20k/10/reused", clients: 10},
		{Name: "alt20k/50/reused", clients: 50}, {Name: "alt20k/200/reused", clients: 200},
		{Name: "alt20k/50/new", clients: 50, perConnection: 1},
		{Name: "alt20k/50/secure", clients: 50, secure: true},
		{Name: "text1k/10/reused", clients: 10},
		{Name: "att1m/10/send", clients: 10, config: "[mail]\nattachments = \"send\"\n"},
		{Name: "att1m/10/strip", clients: 10, config: "[mail]\nattachments = \"strip\"\n"},
		{Name: "alt20k/10/100recipients", clients: 10, recipients: 100},
		{Name: "alt20k/50/durable", clients: 50, durable: true, config: "[delivery]\nwait = \"0s\"\n"},
		{Name: "alt20k/200/durable", clients: 200, durable: true, config: "[delivery]\nwait = \"0s\"\n"},
	}
	for i := range all {
		all[i].mail, _, _ = strings.Cut(all[i].Name, "/")
		all[i].recipients = max(all[i].recipients, 1)
	}
	return all
}

// measurement is a cell on one system.
type measurement struct {
	cell   cell
	system string
}

func run(ctx context.Context, o options) error {
	dir, err := os.MkdirTemp("", "smtp2rest-bench-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	b := &bench{options: o, binaries: map[string]string{"smtp2rest": filepath.Join(dir, "smtp2rest")}}
	if o.binary != "" {
		b.binaries["smtp2rest"] = o.binary
	} else if out, err := exec.CommandContext(ctx, "go", "build", "-o", b.binaries["smtp2rest"], "./cmd/smtp2rest").CombinedOutput(); err != nil {
		return fmt.Errorf("%w: %s", err, out)
	}
	systems := []string{"bare", "smtp2rest"}
	for _, one := range o.also {
		name, binary, _ := strings.Cut(one, "=")
		b.binaries[name] = binary
		systems = append(systems, name)
	}
	if o.postfix != "" {
		systems = append(systems, "postfix")
	}
	if b.certificate, b.pem, err = selfSigned(); err != nil {
		return err
	}
	var todo []measurement
	for _, c := range o.cells {
		for _, system := range systems {
			if !(c.durable && system == "bare") && !(c.secure && system == "postfix") {
				todo = append(todo, measurement{c, system})
			}
		}
	}
	results := map[string]map[string][]figures{}
	for round := range o.rounds {
		for i, at := range rand.Perm(len(todo)) {
			m := todo[at]
			f, err := b.measure(ctx, m)
			if err != nil {
				return fmt.Errorf("%s on %s: %w", m.cell.Name, m.system, err)
			}
			if results[m.cell.Name] == nil {
				results[m.cell.Name] = map[string][]figures{}
			}
			results[m.cell.Name][m.system] = append(results[m.cell.Name][m.system], f)
			fmt.Fprintf(os.Stderr, "\rround %d of %d: %d of %d ", round+1, o.rounds, i+1, len(todo))
		}
	}
	fmt.Fprintln(os.Stderr)
	t := table{Go: runtime.Version(), CPUs: runtime.NumCPU(), Rounds: o.rounds, Seconds: o.time.Seconds()}
	t.fill(todo, results)
	t.print(os.Stdout)
	if o.json != "" {
		text, err := json.MarshalIndent(t, "", "  ")
		if err != nil {
			return err
		}
		if err := os.WriteFile(o.json, append(text, '\n'), 0o644); err != nil {
			return err
		}
	}
	if o.floor != "" {
		return t.above(o.floor)
	}
	return nil
}
