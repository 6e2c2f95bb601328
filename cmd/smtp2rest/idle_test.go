//go:build linux

package main

import (
	"os"
	"os/exec"
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
	before := processorTime(t, p)
	<-time.After(look)
	used, rss := processorTime(t, p)-before, float64(resident(t, p, "VmRSS"))/1024
	t.Logf("start %v, resident %.1f MiB, processor %v in %v", took.Round(time.Millisecond), rss, used, look)
	if took > 2*time.Second || rss > 40 || used > look/20 {
		t.Errorf("start %v, resident %.1f MiB, processor %v in %v: more than an idle relay needs", took, rss, used, look)
	}
	p.signal(syscall.SIGTERM)
	if code := p.exit(); code != 0 {
		t.Errorf("exit code %d", code)
	}
}
