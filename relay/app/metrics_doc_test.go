package app

import (
	"flag"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/smtp2rest/smtp2rest/relay/config"
	"github.com/smtp2rest/smtp2rest/relay/forward"
)

var update = flag.Bool("update", false, "write generated files anew")

const metricsFile = "../../docs/metrics.md"

const metricsHeader = `# Every metric

What ` + "`/metrics`" + ` answers with, in the text format of Prometheus. Every series is there from the
start, at zero, and no label has an address, an id or free text in it: the number of
series does not grow with the mail. Besides those below there are ` + "`go_*`" + ` and ` + "`process_*`" + `, which
the Prometheus library documents. What is said of a queue, a storage or records is there only
with ` + "`queue.mode = \"disk\"`" + `.

Written from a running relay: ` + "`go generate ./relay/app`" + `.
`

// labelled are labels whose values are the build's.
func (f family) labelled() string {
	if f.name == "smtp2rest_build_info" {
		return "as built"
	}
	return ""
}

// family is one metric as the document has it.
type family struct {
	name, kind, help string
	labels           map[string][]string // with their values, sorted
	buckets          []string
}

// families are all of ours that a running daemon shows.
func families(t *testing.T, a *App) []family {
	t.Helper()
	gathered, err := a.Metrics().Gather()
	if err != nil {
		t.Fatal(err)
	}
	var list []family
	for _, mf := range gathered {
		if !strings.HasPrefix(mf.GetName(), "smtp2rest_") {
			continue
		}
		f := family{name: mf.GetName(), kind: strings.ToLower(mf.GetType().String()), help: mf.GetHelp(), labels: map[string][]string{}}
		for _, m := range mf.GetMetric() {
			for _, l := range m.GetLabel() {
				f.labels[l.GetName()] = append(f.labels[l.GetName()], l.GetValue())
			}
			f.buckets = nil
			for _, b := range m.GetHistogram().GetBucket() {
				f.buckets = append(f.buckets, fmt.Sprint(b.GetUpperBound()))
			}
		}
		for name, values := range f.labels {
			slices.Sort(values)
			f.labels[name] = slices.Compact(values)
		}
		list = append(list, f)
	}
	return list
}

func (f family) String() string {
	details := []string{f.kind}
	for _, name := range slices.Sorted(maps.Keys(f.labels)) {
		values := f.labelled()
		if values == "" {
			values = "`" + strings.Join(f.labels[name], "`, `") + "`"
		}
		details = append(details, fmt.Sprintf("`%s` is %s", name, values))
	}
	if f.buckets != nil {
		details = append(details, "up to "+strings.Join(f.buckets, ", "))
	}
	return fmt.Sprintf("- **`%s`** (%s)  \n  %s\n", f.name, strings.Join(details, "; "), f.help)
}

// area is the word behind the prefix, by which the document is parted.
func (f family) area() string {
	area, _, _ := strings.Cut(strings.TrimPrefix(f.name, "smtp2rest_"), "_")
	return area
}

func metricsText(list []family) string {
	var b strings.Builder
	b.WriteString(metricsHeader)
	area := ""
	for _, f := range list {
		if f.area() != area {
			area = f.area()
			fmt.Fprintf(&b, "\n## %s\n\n", area)
		}
		b.WriteString(f.String())
	}
	return b.String()
}

// withEverything runs a daemon that has all that can have metrics.
func withEverything(t *testing.T) *App {
	t.Helper()
	conf := load(t, newSandbox(t).URL(), toml(t, "[[warming]]\ndomain = \"sandbox.example\"\nbegin = \"2026-01-01\""))
	conf.Webhook.Address, conf.Webhook.Secret = "127.0.0.1:0", config.NewSecret("whsec_test")
	conf.Forwards = []config.Forward{{Endpoint: forward.Endpoint{Name: "crm", URL: "http://127.0.0.1:9/", Timeout: time.Second, MaxPending: 1}, Secret: config.NewSecret("whsec_test")}}
	a, _ := start(t, conf)
	return a
}

func TestMetricsDocument(t *testing.T) {
	list := families(t, withEverything(t))
	want := metricsText(list)
	if *update {
		if err := os.WriteFile(metricsFile, []byte(want), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got, err := os.ReadFile(metricsFile)
	if err != nil {
		t.Fatal(err)
	}
	if string(got) != want {
		t.Error("docs/metrics.md is not what the daemon shows: go generate ./relay/app")
	}
	for _, f := range list {
		if f.help == "" || !strings.HasSuffix(f.help, ".") || strings.ContainsAny(f.help, "\n`") {
			t.Errorf("%s: its help is not a sentence: %q", f.name, f.help)
		}
	}
}
