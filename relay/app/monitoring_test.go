package app

import (
	"encoding/json"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

const (
	monitoringDir  = "../../docs/monitoring"
	operationsFile = "../../docs/operations.md"
)

// metricNames are the metrics that a query names.
func metricNames(query string) []string {
	return regexp.MustCompile(`\b(smtp2rest|go|process)_[a-z0-9_]+`).FindAllString(query, -1)
}

// shown is what a running daemon shows, by name: its labels with their values.
func shown(t *testing.T) map[string]map[string][]string {
	t.Helper()
	a := withEverything(t)
	all := map[string]map[string][]string{}
	for _, f := range families(t, a) {
		all[f.name] = f.labels
		if f.kind == "histogram" {
			for _, part := range []string{"_bucket", "_count", "_sum"} {
				all[f.name+part] = f.labels
			}
		}
	}
	gathered, err := a.Metrics().Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, mf := range gathered {
		if _, ours := all[mf.GetName()]; !ours {
			all[mf.GetName()] = nil
		}
	}
	return all
}

// knows complains about what a query names and no daemon shows: a metric, or a
// value of one of its labels. Such a query says nothing, for ever, and nobody
// notices.
func knows(t *testing.T, all map[string]map[string][]string, where, query string) {
	t.Helper()
	names := metricNames(query)
	for _, name := range names {
		if _, ok := all[name]; !ok {
			t.Errorf("%s: there is no metric %s", where, name)
		}
	}
	matchers := regexp.MustCompile(`\b((?:smtp2rest|go|process)_[a-z0-9_]+)\{([^}]*)\}`).FindAllStringSubmatch(query, -1)
	for _, m := range matchers {
		for _, l := range regexp.MustCompile(`([a-z]+)(=~?|!=|!~)"([^"]*)"`).FindAllStringSubmatch(m[2], -1) {
			if l[1] == "job" || l[1] == "instance" || l[1] == "le" {
				continue
			}
			for _, value := range strings.Split(l[3], "|") {
				if !slices.Contains(all[m[1]][l[1]], value) {
					t.Errorf("%s: %s has no %s=%q", where, m[1], l[1], value)
				}
			}
		}
	}
}

func read(t *testing.T, path string) string {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func alerts(t *testing.T) []string {
	t.Helper()
	var names []string
	for _, m := range regexp.MustCompile(`(?m)^ +- alert: (\w+)$`).FindAllStringSubmatch(read(t, filepath.Join(monitoringDir, "alerts.yml")), -1) {
		names = append(names, m[1])
	}
	if len(names) < 10 {
		t.Fatalf("only %d alerts are found", len(names))
	}
	return names
}

func TestAlertsAndDashboardNameWhatThereIs(t *testing.T) {
	all := shown(t)
	knows(t, all, "alerts.yml", read(t, filepath.Join(monitoringDir, "alerts.yml")))
	knows(t, all, "alerts_test.yml", read(t, filepath.Join(monitoringDir, "alerts_test.yml")))
	var dashboard struct {
		Panels []struct {
			Title   string
			Type    string
			Targets []struct{ Expr string }
		}
	}
	if err := json.Unmarshal([]byte(read(t, filepath.Join(monitoringDir, "grafana.json"))), &dashboard); err != nil {
		t.Fatal(err)
	}
	queries := 0
	for _, p := range dashboard.Panels {
		for _, target := range p.Targets {
			queries++
			knows(t, all, "grafana.json: "+p.Title, target.Expr)
			if len(metricNames(target.Expr)) == 0 && !strings.HasPrefix(target.Expr, "up{") {
				t.Errorf("grafana.json: %s names no metric: %s", p.Title, target.Expr)
			}
		}
	}
	if queries < 20 {
		t.Errorf("only %d queries are found", queries)
	}
}

// An operator who is woken by an alert finds what to do.
func TestEachAlertIsExplainedAndTried(t *testing.T) {
	operations, scenarios := read(t, operationsFile), read(t, filepath.Join(monitoringDir, "alerts_test.yml"))
	for _, name := range alerts(t) {
		if !strings.Contains(operations, "### "+name+"\n") {
			t.Errorf("docs/operations.md does not explain %s", name)
		}
		if n := strings.Count(scenarios, "alertname: "+name+"\n") + strings.Count(scenarios, "alertname: "+name+","); n < 2 {
			t.Errorf("%s has %d scenarios, want one that fires and one that does not", name, n)
		}
	}
}

func promtool(t *testing.T, stdin string, args ...string) {
	t.Helper()
	path, err := exec.LookPath("promtool")
	if err != nil {
		t.Skip("promtool is not installed; Debian has it in the package prometheus")
	}
	cmd := exec.CommandContext(t.Context(), path, args...)
	cmd.Dir, cmd.Stdin = monitoringDir, strings.NewReader(stdin)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("promtool %s: %v\n%s", strings.Join(args, " "), err, out)
	}
}

func TestPromtoolTakesTheAlerts(t *testing.T) {
	promtool(t, "", "check", "rules", "alerts.yml")
	promtool(t, "", "test", "rules", "alerts_test.yml")
}

func TestPromtoolTakesAScrape(t *testing.T) {
	c := load(t, newSandbox(t).URL(), toml(t, "[[warming]]\ndomain = \"sandbox.example\"\nbegin = \"2026-01-01\""))
	a, _ := start(t, c)
	handOver(t, a, "bob@example.net")
	status, scrape := fetch(t, c, "/metrics")
	if status != http.StatusOK {
		t.Fatal(status)
	}
	// What the Go library shows of itself is not ours to name.
	var ours strings.Builder
	for line := range strings.Lines(scrape) {
		if strings.Contains(line, "smtp2rest_") {
			ours.WriteString(line)
		}
	}
	promtool(t, ours.String(), "check", "metrics")
}
