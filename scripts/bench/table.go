package main

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"
)

// figures are the results of one measurement.
type figures struct {
	Rate float64 `json:"mails_per_second"`
	P50  float64 `json:"p50_ms"`
	P99  float64 `json:"p99_ms"`
	CPU  float64 `json:"cpu_ms_per_mail"` // of the relay
	Peak float64 `json:"peak_mib"`
}

// row is the medians of one cell on one system, and their ratios to the first system's.
type row struct {
	Cell    string  `json:"cell"`
	System  string  `json:"system"`
	Median  figures `json:"median"`
	Least   float64 `json:"least_mails_per_second"`
	Most    float64 `json:"most_mails_per_second"`
	Ratio   float64 `json:"rate_ratio"` // the median of the ratios of each round
	CPU     float64 `json:"cpu_ratio"`
	Wait    float64 `json:"p50_ratio"`
	Against string  `json:"against"`
}

type table struct {
	Go      string  `json:"go"`
	CPUs    int     `json:"cpus"`
	Rounds  int     `json:"rounds"`
	Seconds float64 `json:"seconds"`
	Rows    []row   `json:"rows"`
}

func (t *table) fill(todo []measurement, results map[string]map[string][]figures) {
	first := map[string]string{} // the system that the others of a cell are compared with
	for _, m := range todo {
		all := results[m.cell.Name][m.system]
		against := cmp.Or(first[m.cell.Name], m.system)
		first[m.cell.Name] = against
		base := results[m.cell.Name][against]
		rates := column(all, rate)
		t.Rows = append(t.Rows, row{
			Cell: m.cell.Name, System: m.system, Against: against,
			Median: figures{median(rates), median(column(all, p50)), median(column(all, p99)), median(column(all, cpu)), median(column(all, peak))},
			Least:  slices.Min(rates), Most: slices.Max(rates),
			Ratio: ratio(all, base, rate), CPU: ratio(all, base, cpu), Wait: ratio(all, base, p50),
		})
	}
}

func rate(f figures) float64 { return f.Rate }
func p50(f figures) float64  { return f.P50 }
func p99(f figures) float64  { return f.P99 }
func cpu(f figures) float64  { return f.CPU }
func peak(f figures) float64 { return f.Peak }

func column(all []figures, of func(figures) float64) (list []float64) {
	for _, f := range all {
		list = append(list, of(f))
	}
	return list
}

func median(list []float64) float64 {
	list = slices.Sorted(slices.Values(list))
	return (list[(len(list)-1)/2] + list[len(list)/2]) / 2
}

// ratio compares round by round, because what else the machine does changes from one
// round to the next.
func ratio(all, base []figures, of func(figures) float64) float64 {
	var list []float64
	for i := range all {
		list = append(list, of(all[i])/of(base[i]))
	}
	return median(list)
}

func (t *table) print(out io.Writer) {
	fmt.Fprintf(out, "%s, %d CPUs, %d rounds of %g s; medians, and of mails/s the least and the most\n", t.Go, t.CPUs, t.Rounds, t.Seconds)
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprintln(w, "mail/clients/how\tsystem\tmails/s\tleast-most\tx\tp50 ms\tx\tp99 ms\tCPU ms/mail\tx\tpeak MiB\t")
	for _, r := range t.Rows {
		m := r.Median
		fmt.Fprintf(w, "%s\t%s\t%.0f\t%.0f-%.0f\t%.2f\t%.2f\t%.2f\t%.2f\t%.3f\t%.2f\t%.0f\t\n", r.Cell, r.System,
			m.Rate, r.Least, r.Most, r.Ratio, m.P50, r.Wait, m.P99, m.CPU, r.CPU, m.Peak)
	}
	_ = w.Flush() // to standard output
}

// quiet is how far apart the rates of one system are at most if nothing else runs.
const quiet = 1.5

// above fails if smtp2rest needs a fourth more processor time beside bare than the file
// says, or takes a fifth less mail. Its lines have a cell and these two ratios, mails a
// second first. On a machine that does other work, mails a second are no measure.
func (t *table) above(name string) error {
	text, err := os.ReadFile(name)
	if err != nil {
		return err
	}
	var worse []error
	for line := range strings.Lines(string(text)) {
		fields := strings.Fields(line)
		if len(fields) != 3 || strings.HasPrefix(line, "#") {
			continue
		}
		want, err1 := strconv.ParseFloat(fields[1], 64)
		cost, err2 := strconv.ParseFloat(fields[2], 64)
		if err := errors.Join(err1, err2); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
		busy := false
		for _, r := range t.Rows {
			switch {
			case r.Cell != fields[0]:
			case r.System == "bare":
				busy = r.Most > quiet*r.Least
			case r.System != "smtp2rest":
			case r.CPU > cost*1.25:
				worse = append(worse, fmt.Errorf("%s: %.2f times bare's processor time, usually %.2f", r.Cell, r.CPU, cost))
			case busy:
				fmt.Printf("%s: the machine is busy; mails a second are not judged\n", r.Cell)
			case r.Ratio < want*0.8:
				worse = append(worse, fmt.Errorf("%s: %.2f times bare's mails a second, usually %.2f", r.Cell, r.Ratio, want))
			}
		}
	}
	return errors.Join(worse...)
}

func ms(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
