package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
	"unicode"

	"github.com/smtp2rest/smtp2rest/cmd/smtp2rest/internal/cli"
	"github.com/smtp2rest/smtp2rest/cmd/smtp2rest/internal/terminal"
	"github.com/smtp2rest/smtp2rest/relay"
	"github.com/smtp2rest/smtp2rest/relay/admin"
	"github.com/smtp2rest/smtp2rest/relay/pace"
	"github.com/smtp2rest/smtp2rest/relay/queue"
	"github.com/smtp2rest/smtp2rest/relay/store"
	"github.com/smtp2rest/smtp2rest/test/harness"
)

// hostileAddress tries to change the title, clear the screen, turn the
// direction of writing, ring the bell, and break the table.
const hostileAddress = "\x1b]0;owned\x07\x1b[2J\u202e\u009b31m\r\nevil@example.net"

func queueMail(id string, ago time.Duration, from string, to ...string) queue.Mail {
	return queue.NewMail(relay.Message{
		ID: id + strings.Repeat("0", 20-len(id)), From: from, Recipients: to,
		Raw:        []byte("Subject: " + id + "\r\n\r\n\x1b[2Jbody\r\n"),
		ReceivedAt: time.Now().Add(-ago),
		Client:     relay.Client{Addr: "127.0.0.1:4711", Helo: "app\x1b[2J", User: "shop", Session: "s1"},
	})
}

func tried(m queue.Mail, s queue.State, o relay.Outcome) queue.Mail {
	r := &m.Recipients[0]
	r.State, r.Attempts = s, 1
	r.History = []queue.Attempt{{Started: m.Message.ReceivedAt, Outcome: o}}
	if !s.Open() {
		r.Ended = m.Message.ReceivedAt
	}
	return m
}

func openQueue(t *testing.T, dir string) store.Queue {
	t.Helper()
	s, err := store.Open(t.Context(), store.SQLite(dir), store.Options{Part: store.OnlyQueue, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() }) // closing twice is harmless
	return s.Queue
}

// queueDir is a short-lived data directory with one of everything; its path is
// short enough for a socket.
func queueDir(t *testing.T, mails ...queue.Mail) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "q")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	if mails == nil {
		later := tried(queueMail("ab2", 26*time.Hour, "shop@example.com", "late@example.net"), queue.Waiting,
			relay.Outcome{Status: 503, Detail: "maintenance", Took: 1500 * time.Millisecond})
		later.Recipients[0].Due = time.Now().Add(4*time.Minute + 30*time.Second)
		failed := tried(queueMail("bb1", 5*time.Minute+30*time.Second, "news@example.org", "f@example.net"), queue.Failed,
			relay.Outcome{Kind: relay.Refused, Status: 422, Detail: "to: no such domain"})
		mails = []queue.Mail{
			queueMail("aa1", 50*time.Hour, "shop@example.com", "a@example.net", "b@example.net"),
			queueMail("ab1", 49*time.Hour, "", "shop@example.com"),
			later,
			tried(queueMail("ba1", 90*time.Minute, "shop@example.com", "held@example.net"), queue.Held, relay.Outcome{Cause: errors.New("connection refused")}),
			tried(queueMail("ba2", 80*time.Minute, "news@example.org", "sent@example.net"), queue.Sent, relay.Outcome{Kind: relay.Accepted, Status: 200, MessageID: "m-1"}),
			failed,
			queueMail("ca1", 3*time.Minute+30*time.Second, hostileAddress, hostileAddress),
		}
	}
	store := openQueue(t, dir)
	if err := store.Enqueue(t.Context(), mails...); err != nil {
		t.Fatal(err)
	}
	if err := store.Close(); err != nil {
		t.Fatal(err)
	}
	return dir
}

// screen is a terminal of a test.
type screen struct {
	terminal.Terminal
	out, err bytes.Buffer
}

// typed runs a command line in this process.
func typed(t *testing.T, s *screen, args ...string) harness.Result {
	t.Helper()
	s.Terminal.Out, s.Terminal.Err, s.Version = &s.out, &s.err, "development"
	if s.In == nil {
		s.In = strings.NewReader("")
	}
	if s.Env == nil {
		s.Env = func(name string) (string, bool) {
			return map[string]string{"HOME": "/nonexistent", "SMTP2REST_DATA_DIR": "/nonexistent/data"}[name], name == "HOME" || name == "SMTP2REST_DATA_DIR"
		}
	}
	code := cli.Run(t.Context(), &s.Terminal, args)
	r := harness.Result{Out: s.out.String(), Err: s.err.String(), Code: code}
	s.out.Reset()
	s.err.Reset()
	return r
}

// times are what differs from run to run.
func maskTimes(s string) string {
	s = regexp.MustCompile(`\d{4}-\d\d-\d\dT[0-9:.]+Z`).ReplaceAllString(s, "TIME")
	return regexp.MustCompile(`\d{4}-\d\d-\d\d \d\d:\d\d:\d\d`).ReplaceAllString(s, "TIME")
}

// What an operator sees of a stopped daemon's queue, to the letter.
func TestQueueGolden(t *testing.T) {
	dir := queueDir(t)
	for _, tt := range []struct {
		name, args string
		width      int
	}{
		{"list", "", 0},
		{"list-screen", "list", 120},
		{"list-narrow", "list", 40},
		{"list-limit", "list --limit 2", 0},
		{"list-all", "list --state all", 0},
		{"list-filters", "list --sender SHOP@example.com --older 1d --newer 49h", 0},
		{"list-id", "list --id ab", 0},
		{"list-nothing", "list --recipient nobody@example.net", 0},
		{"list-json", "list --json", 0},
		{"list-json-limit", "list --json --limit 1", 0},
		{"list-json-nothing", "list --json --id zz", 0},
		{"show", "show ab2", 0},
		{"show-hostile", "show ca1", 100},
		{"show-json", "show bb1 --json", 0},
		{"show-failed", "show bb1", 0},
		{"show-raw", "show aa1 --raw", 0},
		{"show-raw-screen", "show aa1 --raw", 80},
		{"show-ambiguous", "show a", 0},
		{"show-none", "show zz", 0},
		{"show-raw-sent", "show ba2 --raw", 0},
		{"status", "status", 0},
		{"status-json", "status --json", 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			args := append([]string{"queue"}, strings.Fields(tt.args)...)
			r := typed(t, &screen{Terminal: terminal.Terminal{Width: tt.width}}, append(args, "--data-dir", dir)...)
			golden(t, "queue/"+tt.name+".txt", maskTimes(fmt.Sprintf("%s%s(exit code %d)\n", r.Out, r.Err, r.Code)))
			if tt.width > 0 || !strings.Contains(tt.args, "--raw") {
				harmless(t, r.All())
			}
			if strings.HasSuffix(tt.name, "json") && !json.Valid([]byte(r.Out)) {
				t.Errorf("not JSON: %s", r.Out)
			}
		})
	}
}

// harmless: nothing in s makes a terminal do anything but show it.
func harmless(t *testing.T, s string) {
	t.Helper()
	for _, r := range s {
		if r != '\n' && r != '\ufffd' && !unicode.IsPrint(r) {
			t.Errorf("%U reaches the terminal in %q", r, s)
			return
		}
	}
}

// The changes, one after the other, on a stopped daemon's queue and through a
// daemon's socket: what is said must be the same.
func TestQueueChanges(t *testing.T) {
	lines := []struct {
		args, want string
		code       int
	}{
		{"hold aa1", "2 recipients held.\n", 0},
		{"hold aa1 --recipient a@example.net", "0 recipients held.\n", 0},
		{"release aa1 --recipient a@example.net", "1 recipient released.\n", 0},
		{"hold a", "several mails begin with a:\n  aa1", 1},
		{"hold aa1 zz", "no such mail", 1},
		{"hold --sender shop@example.com --older 25h --json", `{"recipients":2}` + "\n", 0},
		{"release --all", "4 recipients released.\n", 0},
		{"retry --state failed", "1 recipient due now.\n", 0},
		{"flush", "7 recipients due now.\n", 0},
		{"drop ba1", "no terminal to ask at; use --yes to confirm", 2},
		{"drop ba1 ba2 --yes", "1 recipient dropped.\n", 0},
		{"drop --yes", "say what to drop", 2},
		{"drop --yes --limit 1", "there is no flag --limit", 2},
		{"drop --yes --all --sender a@b", "--all is everything", 2},
		{"drop --yes --all ab1", "--all is everything", 2},
		{"drop --yes --id a ab1", "name ids either in full or by --id", 2},
		{"list --limit 1 --recipient late@example.net", "1 shown. In the queue: 6 waiting", 0},
		{"drop --all --yes", "6 recipients dropped.\n", 0},
		{"list", "Nothing to show. In the queue: 0 waiting, 0 being sent, 0 held, 0 failed.\n", 0},
	}
	for name, flags := range map[string]func(t *testing.T) []string{
		"data directory": func(t *testing.T) []string { return []string{"--data-dir", queueDir(t)} },
		"daemon's data directory": func(t *testing.T) []string {
			dir := queueDir(t)
			serveQueue(t, dir, admin.SocketIn(dir))
			return []string{"--data-dir", dir}
		},
		"socket": func(t *testing.T) []string {
			dir := queueDir(t)
			path := filepath.Join(dir, "other")
			serveQueue(t, dir, path)
			return []string{"--socket", path}
		},
	} {
		t.Run(name, func(t *testing.T) {
			where := flags(t)
			for _, line := range lines {
				r := typed(t, &screen{}, append(append([]string{"queue"}, strings.Fields(line.args)...), where...)...)
				if r.Code != line.code || !strings.Contains(r.All(), line.want) {
					t.Fatalf("%s: exit code %d\n%swant %d\n%s", line.args, r.Code, r.All(), line.code, line.want)
				}
			}
		})
	}
}

// serveQueue is as much of a daemon as the command needs.
func serveQueue(t *testing.T, dir, socket string) {
	t.Helper()
	a := admin.New(admin.Options{Queue: openQueue(t, dir), Version: "v1", Started: time.Now(), Pace: func() pace.State {
		return pace.State{Rate: 7.5, Found: true, Breaker: pace.BreakerState{Open: true, Why: pace.KeyBad, Since: time.Now(), ProbeAt: time.Now()}}
	}})
	s := admin.NewServer(admin.ServerOptions{Admin: a, Path: socket})
	if err := s.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), harness.Patience)
		defer cancel()
		if err := s.Stop(ctx); err != nil {
			t.Error(err)
		}
	})
}

func TestQueueStatusOfADaemon(t *testing.T) {
	dir := queueDir(t)
	serveQueue(t, dir, admin.SocketIn(dir))
	r := typed(t, &screen{}, "queue", "status", "--data-dir", dir)
	for _, want := range []string{`daemon +v1, running for 0s`, `API +the API refuses the key, for 0s; next try in 0s`, `rate +7\.5 calls a second, found by trying`,
		`trouble: 5 recipients wait: the API refuses the key`, `put the right API key in place`} {
		if !regexp.MustCompile(want).MatchString(r.Out) {
			t.Errorf("%q is not in\n%s", want, r.All())
		}
	}
}

// Whoever is asked before a drop must say yes.
func TestDropAsks(t *testing.T) {
	dir := queueDir(t)
	drop := func(answer string, args ...string) harness.Result {
		s := &screen{Terminal: terminal.Terminal{Asks: true, In: strings.NewReader(answer)}}
		return typed(t, s, append([]string{"queue", "drop", "--data-dir", dir}, args...)...)
	}
	for _, answer := range []string{"", "\n", "n\n", "yess\n", "y e s\n"} {
		r := drop(answer, "aa1")
		if r.Code != 1 || r.Out != "" || !strings.Contains(r.Err, "Drop 2 recipients of 1 mail? Nobody is told, and it cannot be undone. [y/N] ") || !strings.Contains(r.Err, "nothing was changed") {
			t.Errorf("%q: %+v", answer, r)
		}
	}
	if r := drop("YES\n", "aa1"); r.Code != 0 || r.Out != "2 recipients dropped.\n" {
		t.Errorf("yes: %+v", r)
	}
	if r := drop("y\n", "--all"); r.Code != 0 || r.Out != "5 recipients dropped.\n" || !strings.Contains(r.Err, "Drop 5 recipients of 5 mails?") {
		t.Errorf("y to all: %+v", r)
	}
	if r := drop("", "--all"); r.Code != 0 || r.Out != "0 recipients dropped.\n" || r.Err != "" {
		t.Errorf("nothing is left to ask about: %+v", r)
	}
}

// Ctrl-C at the question is no yes.
func TestDropIsNotAskedForEver(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	in, out := io.Pipe()
	defer func() { _ = out.Close() }()
	if err := (&terminal.Terminal{In: in, Err: io.Discard}).Confirm(ctx, "Drop it?"); !errors.Is(err, terminal.ErrNotConfirmed) {
		t.Errorf("ask: %v", err)
	}
}

// How the command finds the queue, and what it says when it does not.
func TestQueueIsFound(t *testing.T) {
	dir := queueDir(t)
	empty := t.TempDir()
	locked := queueDir(t, queueMail("aa1", time.Minute, "a@example.com", "b@example.net"))
	openQueue(t, locked)
	dead := queueDir(t, queueMail("aa1", time.Minute, "a@example.com", "b@example.net"))
	if err := os.WriteFile(admin.SocketIn(dead), nil, 0o600); err != nil { // as refusing as the socket of a dead daemon
		t.Fatal(err)
	}
	config := harness.ConfigFile(t, fmt.Sprintf("[sender]\nemail = \"a@example.com\"\n[queue]\ndata_dir = %q\n", dir))
	wrong := harness.ConfigFile(t, "[queue]\ndatadir = \"x\"\n")
	for name, tt := range map[string]struct {
		env  map[string]string
		args []string
		code int
		want string
	}{
		"data directory": {nil, []string{"--data-dir", dir}, 0, "aa10000"},
		"config":         {nil, []string{"--config", config}, 0, "aa10000"},
		"environment":    {map[string]string{"SMTP2REST_DATA_DIR": dir}, nil, 0, "aa10000"},
		"systemd":        {map[string]string{"STATE_DIRECTORY": dir}, nil, 0, "aa10000"},
		"a dead socket":  {nil, []string{"--data-dir", dead}, 0, "aa10000"},
		"nowhere":        {map[string]string{"HOME": "/home/nobody-of-this-test"}, nil, 1, "there is no queue in /home/nobody-of-this-test/.local/state/smtp2rest or /var/lib/smtp2rest; use --config"},
		"empty":          {nil, []string{"--data-dir", empty}, 1, "there is no queue in " + empty},
		"no socket":      {nil, []string{"--socket", "/nonexistent/s"}, 1, "no daemon answers: there is no socket /nonexistent/s"},
		"locked":         {nil, []string{"--data-dir", locked}, 1, "another smtp2rest is using " + locked + " but does not answer on " + admin.SocketIn(locked) + "; give its --socket or stop it"},
		"wrong config":   {nil, []string{"--config", wrong}, 78, "data_dir"},
		"two ways":       {nil, []string{"--config", config, "--data-dir", dir}, 2, "only one of --data-dir, --config"},
		"three ways":     {nil, []string{"--socket", "x", "--data-dir", dir}, 2, "--socket cannot be combined with"},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := os.Stat("/var/lib/smtp2rest"); err == nil && name == "nowhere" {
				t.Skip("this machine has a queue of its own in /var/lib/smtp2rest, which is found")
			}
			s := &screen{Terminal: terminal.Terminal{Env: func(name string) (string, bool) { v, ok := tt.env[name]; return v, ok }}}
			r := typed(t, s, append([]string{"queue", "list"}, tt.args...)...)
			if r.Code != tt.code || !strings.Contains(r.All(), tt.want) {
				t.Errorf("exit code %d\n%swant %d and %q", r.Code, r.All(), tt.code, tt.want)
			}
		})
	}
	if left, err := os.ReadDir(empty); err != nil || len(left) > 0 {
		t.Errorf("looking for a queue made %v (%v)", left, err)
	}
}

// Verbs are explained each and all, and slips are answered with the right one.
func TestQueueCommandLines(t *testing.T) {
	for _, tt := range []struct {
		args string
		code int
		want string
	}{
		{"queue lsit", 2, `there is no command "queue lsit"; did you mean "list"?`},
		{"queue rm", 2, "'queue show rm' shows one mail"},
		{"queue --json drop", 2, "say what to drop"},
		{"queue list aa1", 2, "'queue show aa1' shows one mail"},
		{"queue list --stat x", 2, `did you mean "--state"?`},
		{"queue list --state wating", 2, `there is no state "wating"; did you mean "waiting"?`},
		{"queue list --state x", 2, "States are: open, all, "},
		{"queue list --sender", 2, "--sender needs a value"},
		{"queue list --limit x", 2, `invalid value "x" for --limit`},
		{"queue list --older 2x", 2, `found "2x", which is not a time`},
		{"queue list --newer 0s", 2, "write how long ago"},
		{"queue list --sender <>", 2, "the null sender cannot be selected"},
		{"queue show", 2, "name one mail by its id"},
		{"queue show a b", 2, "name one mail by its id"},
		{"queue show a --raw --json", 2, "--raw is not JSON"},
		{"queue status x", 2, `unexpected argument "x"`},
		{"queue flush x", 2, "'queue retry x' is for one mail"},
		{"queue hold", 2, "say what to hold: ids, a filter such as --sender, or --all"},
		{"queue retry", 2, "say what to retry"},
		{"queue release", 2, "say what to release"},
		{"queue drop", 2, "say what to drop"},
		{"help queue dorp", 2, `there is no command "queue dorp"; did you mean "drop"?`},
		{"help queue drop", 0, "smtp2rest queue drop [ID...] [flags]"},
		{"queue drop --help", 0, "--yes"},
		{"queue --help", 0, "smtp2rest queue [command]"},
	} {
		r := typed(t, &screen{}, strings.Fields(tt.args)...)
		if r.Code != tt.code || !strings.Contains(r.All(), tt.want) {
			t.Errorf("%s: exit code %d\n%swant %d and %q", tt.args, r.Code, r.All(), tt.code, tt.want)
		}
	}
}

// The real daemon, and the command beside it and after it.
func TestQueueOfARunningDaemon(t *testing.T) {
	r := harness.ServeSandbox(t, "")
	dir := sandboxQueue(t, r)
	c := harness.Dial(t, r.SMTP)
	c.Do("", "220", "EHLO a", "250", "MAIL FROM:<shop@example.com>", "250", "RCPT TO:<down@example.net>", "250", "DATA", "354", "Subject: x\r\n\r\nx\r\n.", "250 2.0.0 queued")
	queueOf := func(args ...string) harness.Result {
		return harness.Execute(t, harness.Environ(t), "", append(append([]string{"queue"}, args...), "--data-dir", dir)...)
	}
	if got := queueOf("list"); got.Code != 0 || !regexp.MustCompile(`(?m)^\w{20} +\d+s +(waiting|sending) +[0-9]+ .*down@example\.net`).MatchString(got.Out) {
		t.Errorf("list: %+v", got)
	}
	if got := queueOf("hold", "--recipient", "down@example.net"); got.Out != "1 recipient held.\n" {
		t.Errorf("hold: %+v", got)
	}
	if got := queueOf("status"); !strings.Contains(got.Out, harness.Version+", running for ") {
		t.Errorf("status: %+v", got)
	}
	if got := queueOf("drop", "--all", "--yes"); got.Out != "1 recipient dropped.\n" {
		t.Errorf("drop: %+v", got)
	}
}

// sandboxQueue is where a relay with a sandbox has its queue.
func sandboxQueue(t *testing.T, r harness.Relay) string {
	t.Helper()
	for _, v := range r.Cmd.Env {
		if tmp, ok := strings.CutPrefix(v, "TMPDIR="); ok {
			found, err := filepath.Glob(filepath.Join(tmp, "smtp2rest-sandbox-*"))
			if err != nil || len(found) != 1 {
				t.Fatalf("queues in %s: %v (%v)", tmp, found, err)
			}
			return found[0]
		}
	}
	t.Fatal("no TMPDIR")
	return ""
}

// Mail of an account can be selected, and given to another.
func TestQueueReassign(t *testing.T) {
	one, two := queueMail("aa1", time.Hour, "shop@example.com", "a@example.net"), queueMail("ab1", time.Hour, "shop@example.com", "b@example.net")
	one.Message.Account, two.Message.Account = "gone", "gone"
	dir := queueDir(t, one, two, queueMail("ac1", time.Hour, "shop@example.com", "c@example.net"))
	say := func(args ...string) string {
		t.Helper()
		var out, errs bytes.Buffer
		code := cli.Run(t.Context(), &terminal.Terminal{Out: &out, Err: &errs, Env: func(string) (string, bool) { return "", false }}, append([]string{"queue"}, append(args, "--data-dir", dir)...))
		return fmt.Sprint(code, " ", out.String(), errs.String())
	}
	for _, tt := range []struct{ args, want string }{
		{"reassign --account gone", "say which account gets the mail"},
		{"reassign --to shop", "say what to reassign"},
		{"reassign aa1 --to shop", "1 mail moved to account shop."},
		{"reassign --account gone --to default", "1 mail moved to account default."},
		{"list --account shop", "aa1"},
		{"show aa1", "account"},
	} {
		if got := say(strings.Fields(tt.args)...); !strings.Contains(got, tt.want) {
			t.Errorf("queue %s: %s\nwant %s", tt.args, got, tt.want)
		}
	}
	if got := say("list", "--account", "default"); !strings.Contains(got, "ab1") || !strings.Contains(got, "ac1") || strings.Contains(got, "aa1") {
		t.Errorf("the default account's: %s", got)
	}
}
