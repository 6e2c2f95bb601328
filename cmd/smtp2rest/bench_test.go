package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/smtp2rest/smtp2rest/test/harness"
)

// TestBench measures a relay and plays its API: every mail arrives once for each recipient,
// and a relay that keeps its mail back is found out.
func TestBench(t *testing.T) {
	api := "127.0.0.1:" + harness.FreePort(t)
	env := harness.Environ(t, "NEXUSPROMAIL_API_KEY=k", "NEXUSPROMAIL_API_URL=http://"+api, "FROM_EMAIL=bench@example.com")
	p := harness.Launch(t, env, "serve", "--config", harness.ConfigFile(t, "[[listener]]\naddress = \"127.0.0.1:0\"\n"))
	address := p.Await(p.Err, `msg=listening address=(127\.0\.0\.1:\d+)`)
	got := harness.Execute(t, env, "", "bench", address, "--api", api, "--count", "40", "--clients", "3", "--recipients", "2",
		"--per-connection", "7", "--pipeline", "--pid", strconv.Itoa(p.Cmd.Process.Pid), "--json")
	var report struct {
		Accepted int
		Failures map[string]int
		Arrivals struct{ Exact, Missing, Repeated, Unanswered int }
		Wait     struct{ P50, Max float64 } `json:"wait_ms"`
	}
	if err := json.Unmarshal([]byte(got.Out), &report); err != nil || got.Code != 0 {
		t.Fatalf("%v: %s", err, got.All())
	}
	if a := report.Arrivals; report.Accepted != 40 || a.Exact != 40 || a.Missing+a.Repeated+a.Unanswered != 0 || report.Wait.P50 <= 0 || report.Wait.Max < report.Wait.P50 {
		t.Errorf("%s", got.Out)
	}

	// A relay that hands on to something else, or keeps mail that its API does not take,
	// gets one mail and no more.
	got = harness.Execute(t, env, "", "bench", address, "--smtp-sink", "127.0.0.1:0", "--count", "30", "--clients", "3", "--patience", "10ms")
	if got.Code != 1 || !strings.Contains(got.Err, "the first mail was accepted and did not arrive") || got.Out != "" {
		t.Errorf("%s", got.All())
	}
	got = harness.Execute(t, env, "", "queue", "list", "--json")
	if n := strings.Count(got.Out, `"recipient"`); n > 1 {
		t.Errorf("the relay has %d mails: %s", n, got.All())
	}

	// Without --api nobody knows to whom it hands on.
	if got = harness.Execute(t, env, "", "bench", address, "--count", "1"); !strings.Contains(got.Err, "note: without --api or --smtp-sink") || !strings.Contains(got.Out, "1 mails accepted") {
		t.Errorf("%s", got.All())
	}
}

func TestBenchUsage(t *testing.T) {
	unmarked := filepath.Join(t.TempDir(), "mail")
	if err := os.WriteFile(unmarked, []byte("Subject: x\n\nHello.\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for args, want := range map[string]string{
		"bench":                                 "name the address",
		"bench 127.0.0.1:1 --clients 0":         "at least one",
		"bench 127.0.0.1:1 --tls maybe":         `not "maybe"`,
		"bench 127.0.0.1:1 --mail /nowhere":     "text1k",
		"bench a:1 --api :0 --smtp-sink :0":     "exclude",
		"bench a:1 --time 0s":                   "neither",
		"bench a:1 --count -1":                  "at least one",
		"bench 127.0.0.1":                       "a host and a port",
		"bench a:1 --rate NaN":                  "a rate of NaN",
		"bench a:1 --api :0 --mail " + unmarked: "smtpbench-0000000000000000",
	} {
		if got := harness.Execute(t, harness.Environ(t), "", strings.Fields(args)...); got.Code != 2 || !strings.Contains(got.All(), want) {
			t.Errorf("%s: %d %s", args, got.Code, got.All())
		}
	}
}
