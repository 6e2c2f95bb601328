//go:build linux

package main

import (
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// idleDaemon starts the binary on an empty queue and says how long it took
// until clients could connect.
func idleDaemon(t *testing.T) (p *process, took time.Duration) {
	t.Helper()
	conf := configFile(t, "[[listener]]\naddress = \"127.0.0.1:0\"\n")
	env := environ(t, "NEXUSPROMAIL_API_KEY=k", "FROM_EMAIL=relay@sandbox.example")
	begin := time.Now()
	p = launchCommand(t, env, exec.Command(binary, "serve", "--config", conf))
	p.await(p.err, `msg=listening address=(127\.0\.0\.1:\d+)`)
	return p, time.Since(begin)
}

// idleMemory is a process's memory in MiB.
func idleMemory(t *testing.T, pid int) float64 {
	t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(status)) {
		if kb, ok := strings.CutPrefix(line, "VmRSS:"); ok {
			n, err := strconv.ParseFloat(strings.Fields(kb)[0], 64)
			if err != nil {
				t.Fatal(err)
			}
			return n / 1024
		}
	}
	t.Fatal("no VmRSS")
	return 0
}

// spent is the processor's time that a process used.
func spent(t *testing.T, pid int) time.Duration {
	t.Helper()
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(stat), ") ") // the name may have spaces
	fields := strings.Fields(rest)
	ticks := 0.0
	for _, i := range []int{11, 12} { // utime and stime, in hundredths (proc(5))
		n, err := strconv.ParseFloat(fields[i], 64)
		if err != nil {
			t.Fatal(err)
		}
		ticks += n
	}
	return time.Duration(ticks * float64(10*time.Millisecond))
}

// A relay that has nothing to do starts at once, is small, and sleeps. The
// bounds leave room for a busy machine; SMTP2REST_MEASURE=30s looks for that
// long and prints the figures of docs/operations.md.
func TestIdle(t *testing.T) {
	look := 2 * time.Second
	if v := os.Getenv("SMTP2REST_MEASURE"); v != "" {
		d, err := time.ParseDuration(v)
		if err != nil {
			t.Fatal(err)
		}
		look = d
	}
	p, took := idleDaemon(t)
	<-time.After(look / 2) // what the start left to do
	before := spent(t, p.cmd.Process.Pid)
	<-time.After(look)
	used, rss := spent(t, p.cmd.Process.Pid)-before, idleMemory(t, p.cmd.Process.Pid)
	t.Logf("start %v, resident %.1f MiB, processor %v in %v", took.Round(time.Millisecond), rss, used, look)
	if took > 2*time.Second || rss > 40 || used > look/20 {
		t.Errorf("start %v, resident %.1f MiB, processor %v in %v: more than an idle relay needs", took, rss, used, look)
	}
	p.signal(syscall.SIGTERM)
	if code := p.exit(); code != 0 {
		t.Errorf("exit code %d", code)
	}
}
