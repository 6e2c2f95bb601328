package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/smtp2rest/smtp2rest/cmd/smtp2rest/internal/dialogue"
	"github.com/smtp2rest/smtp2rest/cmd/smtp2rest/internal/terminal"
	"github.com/smtp2rest/smtp2rest/relay/admin"
	"github.com/smtp2rest/smtp2rest/relay/store"
	"github.com/smtp2rest/smtp2rest/relay/suppress"
	"github.com/smtp2rest/smtp2rest/test/harness"
)

// recordsDir is a data directory of a daemon that is stopped.
func recordsDir(t *testing.T, entries ...suppress.Entry) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "s")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	s, err := store.Open(t.Context(), store.SQLite(dir), store.Options{Part: store.OnlyRecords})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Records.Put(t.Context(), entries); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	return dir
}

func bouncedEntry() suppress.Entry {
	since := time.Date(2026, 5, 13, 10, 24, 28, 0, time.UTC)
	return suppress.Entry{Address: "bob@example.net", Reason: suppress.HardBounce, Source: suppress.Webhook, Since: since, Expires: since.AddDate(100, 0, 0),
		Event: "evt_1", Detail: "550 5.1.1 no such user\x1b[2J"}
}

// suppressionsOf runs one command on a directory.
func suppressionsOf(t *testing.T, dir, stdin string, args ...string) harness.Result {
	t.Helper()
	verb := []string{"suppressions", args[0], "--data-dir", dir}
	return harness.Execute(t, harness.Environ(t), stdin, append(verb, args[1:]...)...)
}

func wantOut(t *testing.T, r harness.Result, code int, out, err string) {
	t.Helper()
	if r.Code != code || out != "" && !strings.Contains(r.Out, out) || err == "" != (r.Err == "") || !strings.Contains(r.Err, err) {
		t.Errorf("exit %d\n%s%s\nwant %d, %q, %q", r.Code, r.Out, r.Err, code, out, err)
	}
}

// storyOfSuppressions is told to a directory; the same must come of it whether a
// daemon works on it or not.
func storyOfSuppressions(t *testing.T, dir string) {
	t.Helper()
	run := func(args ...string) harness.Result { return suppressionsOf(t, dir, "", args...) }
	wantOut(t, run("list"), 0, "bob@example.net  hard_bounce  webhook  2026-05-13  2126-05-13  550 5.1.1 no such user\\x1b[2J", "")
	wantOut(t, run("list", "--json"), 0, `"event":"evt_1","detail":"550 5.1.1 no such user\u001b[2J"}`+"\n]\n", "")
	wantOut(t, run("list", "--domain", "else.example"), 0, "No suppressed address", "")
	wantOut(t, run("list", "--reason", "hard_bonce"), 2, "", `did you mean "hard_bounce"?`)
	wantOut(t, run("list", "--source", "cli"), 2, "", `no source "cli"`)
	wantOut(t, run("show", "BOB@Example.net"), 0, "event     evt_1\n", "")
	wantOut(t, run("show", "nobody@example.net"), 1, "", "not suppressed: nobody@example.net")
	wantOut(t, run("add", "Eve@Example.net", "zoë@bücher.example", "--note", "asked by phone", "--expires", "90d"), 0, "2 addresses added.\n", "")
	wantOut(t, run("show", "zoë@xn--bcher-kva.example", "--json"), 0, `"reason":"operator","source":"operator"`, "")
	wantOut(t, run("add", "eve"), 1, "", `"eve" is no mail address`)
	wantOut(t, run("add"), 2, "", "name the addresses")
	wantOut(t, run("add", "a@x.example", "--reason", "x"), 2, "", `no reason "x"`)
	wantOut(t, run("remove", "EVE@example.net", "nobody@example.net"), 0, "1 address removed; 1 not on the list.\n", "")
	wantOut(t, run("show", "eve@example.net"), 1, "", "not suppressed")
	wantOut(t, run("list", "--source", "operator", "--json"), 0, `"note":"asked by phone"`, "")
	wantOut(t, run("list", "--limit", "1"), 0, "bob@example.net", "")
	wantOut(t, run("export", "--format", "xml"), 2, "", `no format "xml"`)
}

// A person is shown the beginning of a long list, and how to see the rest; a
// program gets it all.
func TestLongListOfSuppressions(t *testing.T) {
	var entries []suppress.Entry
	for i := range terminal.TableLimit + 1 {
		e := bouncedEntry()
		e.Address = fmt.Sprintf("n%03d@example.net", i)
		entries = append(entries, e)
	}
	dir := recordsDir(t, entries...)
	for args, want := range map[string]int{"": terminal.TableLimit, "--limit 0": terminal.TableLimit + 1, "--all": terminal.TableLimit + 1, "--limit 2": 2, "--json": terminal.TableLimit + 1} {
		r := suppressionsOf(t, dir, "", append([]string{"list"}, strings.Fields(args)...)...)
		if got := strings.Count(r.Out, "@example.net"); got != want {
			t.Errorf("list %s: %d addresses, want %d", args, got, want)
		}
		if more := strings.Contains(r.Out, "--all shows them"); more != (want <= terminal.TableLimit) {
			t.Errorf("list %s says that there are more: %v", args, more)
		}
	}
}

func TestSuppressionsOfAStoppedDaemon(t *testing.T) {
	storyOfSuppressions(t, recordsDir(t, bouncedEntry()))
}

// TestSuppressionsOfARunningDaemon: the same through the socket, and the list
// that RCPT asks is right at once.
func TestSuppressionsOfARunningDaemon(t *testing.T) {
	dir := recordsDir(t, bouncedEntry())
	p := harness.Launch(t, harness.Environ(t), "serve", "--sandbox", "--config", harness.ConfigFile(t, "[[listener]]\naddress = \"127.0.0.1:0\"\n"))
	used := p.Await(p.Out, `export SMTP2REST_DATA_DIR=(\S+)`)
	smtp := p.Await(p.Out, `(?m)^ +SMTP +(\S+)`)
	file := filepath.Join(dir, "list.csv")
	if r := suppressionsOf(t, dir, "", "export"); r.Code != 0 || os.WriteFile(file, []byte(r.Out), 0o600) != nil {
		t.Fatalf("%+v", r)
	}
	wantOut(t, suppressionsOf(t, used, "", "import", file), 0, "1 address imported.\n", "")
	send := func(to string) string {
		d, err := dialogue.Converse(context.Background(), smtp, dialogue.Envelope{From: "shop@sandbox.example", To: []string{to}, Data: harness.Letter(to, "s")})
		if err != nil {
			t.Fatal(err)
		}
		return d.Reply()
	}
	if got := send("Bob@example.net"); got != "550 5.1.1 <Bob@example.net> suppressed: hard bounce on 2026-05-13" {
		t.Error(got)
	}
	storyOfSuppressions(t, used)
	if got := send("zoë@bücher.example"); strings.HasPrefix(got, "250") {
		t.Error(got)
	}
	wantOut(t, suppressionsOf(t, used, "", "remove", "bob@example.net"), 0, "1 address removed.\n", "")
	if got := send("bob@example.net"); !strings.HasPrefix(got, "250 2.0.0 accepted") {
		t.Error(got)
	}
	// What the API said is written later, and known to the list all the same.
	if got := send("suppressed@example.net"); !strings.HasPrefix(got, "550 5.7.1 suppressed") {
		t.Error(got)
	}
	wantOut(t, suppressionsOf(t, used, "", "show", "suppressed@example.net"), 0, "provider", "")
}

func TestSuppressionsOfNothing(t *testing.T) {
	wantOut(t, suppressionsOf(t, t.TempDir(), "", "list"), 1, "", "and there is no queue in")
}

// TestImportAndExport: what goes out comes in as it was.
func TestImportAndExport(t *testing.T) {
	full := []suppress.Entry{bouncedEntry(), {Address: `"a,b"@x.example`, Reason: suppress.Complaint, Source: suppress.ByOperator,
		Since: time.Date(2026, 5, 13, 0, 0, 0, 123e6, time.UTC), Note: "says \"no\",\nand means it"}}
	for _, format := range []string{"csv", "jsonl"} {
		from, to := recordsDir(t, full...), recordsDir(t)
		out := suppressionsOf(t, from, "", "export", "--format", format)
		wantOut(t, suppressionsOf(t, to, out.Out, "import", "-"), 0, "2 addresses imported.\n", "")
		s, err := store.Open(t.Context(), store.SQLite(to), store.Options{Part: store.OnlyRecords})
		if err != nil {
			t.Fatal(err)
		}
		got, err := s.Records.Entries(t.Context(), suppress.Filter{})
		if cerr := s.Close(); err != nil || cerr != nil {
			t.Fatal(err, cerr)
		}
		if len(got) != 2 || got[1] != full[0] || got[0] != full[1] {
			t.Errorf("%s:\n%s\n got %+v\nwant %+v", format, out.Out, got, full)
		}
	}
}

func TestImportOfOthersFiles(t *testing.T) {
	for name, tt := range map[string]struct {
		args     []string
		text     string
		code     int
		out, err string
		list     string // address reason
	}{
		"a line each":      {nil, "a@x.example\r\nB@x.example\n", 0, "2 addresses imported.", "", "a@x.example operator, b@x.example operator"},
		"a reason for all": {[]string{"--reason", "hard_bounce"}, "a@x.example\n", 0, "1 address imported.", "", "a@x.example hard_bounce"},
		"a provider's": {nil, "\ufeffCreated,Email,Reason,Status\n2026-01-02 03:04:05,a@x.example,complaint,5\n", 0, "1 address imported.", "",
			"a@x.example complaint"},
		"expired":          {nil, "address,expires\na@x.example,2020-01-01\nb@x.example,\n", 0, "1 address imported; 1 had expired.", "", "b@x.example operator"},
		"nothing":          {nil, "", 0, "0 addresses imported.", "", ""},
		"empty lines":      {nil, "\n{\"address\":\"a@x.example\"}\n", 0, "1 address imported.", "", "a@x.example operator"},
		"JSON with spaces": {nil, "{\"address\":\"a@x.example\"}\n\n{\"address\":\"b@x.example\",\"reason\":\"complaint\"}", 0, "2 addresses imported.", "", "a@x.example operator, b@x.example complaint"},
		"no address":       {nil, "name,address\nBob,bob\n", 1, "", `line 2: "bob" is no mail address (0 addresses imported before that)`, ""},
		"no reason":        {nil, "address,reason\na@x.example,spam\n", 1, "", `line 2: there is no reason "spam"`, ""},
		"no time":          {nil, "address,since\na@x.example,yesterday\n", 1, "", `line 2: since: "yesterday" is no time`, ""},
		"broken JSON":      {nil, "{\"address\":\"a@x.example\"}\n{\"addr\n", 1, "", "line 2: it is no JSON object", ""},
		"a quote alone":    {nil, "address\n\"a@x.example\n", 1, "", "line 2", ""},
	} {
		t.Run(name, func(t *testing.T) {
			dir := recordsDir(t)
			wantOut(t, suppressionsOf(t, dir, tt.text, append([]string{"import", "-"}, tt.args...)...), tt.code, tt.out, tt.err)
			s, err := store.Open(t.Context(), store.SQLite(dir), store.Options{Part: store.OnlyRecords})
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = s.Close() }()
			var list []string
			for e, err := range admin.AllSuppressions(t.Context(), admin.NewSuppressions(suppress.NewSplit(s.Records)), admin.SuppressionFilter{}) {
				if err != nil {
					t.Fatal(err)
				}
				list = append(list, e.Address+" "+e.Reason)
			}
			if got := strings.Join(list, ", "); got != tt.list {
				t.Errorf("%s, want %s", got, tt.list)
			}
		})
	}
}
