//go:build linux

package load

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/smtp2rest/smtp2rest/test/harness"
)

// idleDaemon starts the binary on an empty queue and says how long it took
// until clients could connect.
func idleDaemon(t *testing.T) (p *harness.Process, took time.Duration) {
	t.Helper()
	conf := harness.ConfigFile(t, "[[listener]]\naddress = \"127.0.0.1:0\"\n")
	env := harness.Environ(t, "NEXUSPROMAIL_API_KEY=k", "FROM_EMAIL=relay@sandbox.example")
	binary := harness.Binary(t)
	begin := time.Now()
	p = harness.LaunchCommand(t, env, exec.Command(binary, "serve", "--config", conf))
	p.Await(p.Err, `msg=listening address=(127\.0\.0\.1:\d+)`)
	return p, time.Since(begin)
}

// logStarts prints how long starts take, on an empty directory and on one that
// was used before: each the median and the worst of twenty.
func logStarts(t *testing.T) {
	t.Helper()
	conf := harness.ConfigFile(t, "[[listener]]\naddress = \"127.0.0.1:0\"\n")
	var first, again []time.Duration
	for range 20 {
		env := harness.Environ(t, "NEXUSPROMAIL_API_KEY=k", "FROM_EMAIL=relay@sandbox.example")
		for _, to := range []*[]time.Duration{&first, &again} {
			begin := time.Now()
			p := harness.LaunchCommand(t, env, exec.Command(harness.Binary(t), "serve", "--config", conf))
			p.Await(p.Err, `msg=(listening) `)
			*to = append(*to, time.Since(begin).Round(time.Millisecond))
			p.Signal(syscall.SIGTERM)
			p.Exit()
		}
	}
	slices.Sort(first)
	slices.Sort(again)
	t.Logf("starts on an empty directory: median %v, worst %v; again: median %v, worst %v", first[9], first[19], again[9], again[19])
}

// switches is how often a thread of a process went to sleep, so that it had
// been woken.
func switches(t *testing.T, p *harness.Process) int {
	t.Helper()
	threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/status", p.Cmd.Process.Pid))
	if err != nil || len(threads) == 0 {
		t.Fatalf("no threads: %v", err)
	}
	sum := 0
	for _, name := range threads {
		status, err := os.ReadFile(name)
		if err != nil {
			continue // it ended meanwhile
		}
		m := regexp.MustCompile(`(?m)^voluntary_ctxt_switches:\s+(\d+)$`).FindSubmatch(status)
		if m == nil {
			t.Fatalf("no switches in %s", status)
		}
		n, _ := strconv.Atoi(string(m[1])) // they are digits
		sum += n
	}
	return sum
}

// look is what an idle daemon took of the machine for a while.
type look struct {
	processor time.Duration // user and system time
	woken     int           // voluntary switches of its threads
}

// watch looks at a process for a while.
func watch(t *testing.T, p *harness.Process, while time.Duration) look {
	t.Helper()
	processor, woken := processorTime(t, p), switches(t, p)
	<-time.After(while)
	return look{processorTime(t, p) - processor, switches(t, p) - woken}
}

// quietest looks at a process for some two seconds, up to ten times, until it
// sleeps. What happens once, such as the last steps of a start, is in one of
// the looks; what happens every second is in all of them.
func quietest(t *testing.T, p *harness.Process, sleeps func(look) bool) look {
	t.Helper()
	best := watch(t, p, 2*time.Second)
	for tries := 1; tries < 10 && !sleeps(best); tries++ {
		if l := watch(t, p, 2*time.Second); l.woken < best.woken {
			best = l
		}
	}
	return best
}

// A relay that has nothing to do starts at once, is small, and sleeps. The
// bounds leave room for a busy machine; SMTP2REST_MEASURE=30s looks for that
// long as well and prints the figures of docs/operations.md.
func TestIdle(t *testing.T) {
	measure := os.Getenv("SMTP2REST_MEASURE")
	if measure != "" {
		logStarts(t)
	}
	p, took := idleDaemon(t)
	started := processorTime(t, p)
	// A single timer that fires every second is some ten switches each time.
	sleeps := func(l look) bool { return l.woken <= 10 && l.processor <= 100*time.Millisecond }
	idle, rss := quietest(t, p, sleeps), float64(resident(t, p, "VmRSS"))/1024
	t.Logf("start %v (processor %v), resident %.1f MiB, idle for 2s: %+v", took.Round(time.Millisecond), started, rss, idle)
	if started > time.Second || rss > 40 || !sleeps(idle) {
		t.Error("more than an idle relay needs")
	}
	if measure != "" {
		d, err := time.ParseDuration(measure)
		if err != nil {
			t.Fatal(err)
		}
		t.Logf("idle for %v: %+v", d, watch(t, p, d))
	}
	p.Signal(syscall.SIGTERM)
	if code := p.Exit(); code != 0 {
		t.Errorf("exit code %d", code)
	}
}
