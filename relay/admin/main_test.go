package admin

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/smtp2rest/smtp2rest/relay"
	"github.com/smtp2rest/smtp2rest/relay/queue"
	"github.com/smtp2rest/smtp2rest/relay/store"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// noon is when the tests' mail begins to come; all of it is long due.
var noon = time.Date(2026, 3, 29, 12, 0, 0, 0, time.UTC)

// openStore opens a real queue in a directory.
func openStore(t testing.TB, dir string) store.Queue {
	t.Helper()
	s, err := store.Open(t.Context(), store.SQLite(dir), store.Options{Part: store.OnlyQueue, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() }) // closing twice is harmless
	return s.Queue
}

// mail is a mail whose id begins with id, received minutes after noon.
func mail(id string, minutes int, from, raw string, to ...string) queue.Mail {
	_, domain, _ := strings.Cut(from, "@")
	m := queue.NewMail(relay.Message{
		ID: id + strings.Repeat("0", 20-len(id)), From: from, Recipients: to, Raw: []byte(raw),
		ReceivedAt: noon.Add(time.Duration(minutes) * time.Minute),
		Client:     relay.Client{Addr: "127.0.0.1:999", Helo: "app\xff", User: "shop", Listener: "127.0.0.1:25", Session: "s1"},
	})
	m.Lane, m.Domain = from, domain
	return m
}

const hostile = "\x1b]0;owned\x07\x1b[2J\u202eevil\xffx\u009b@example.net"

// seed fills a queue with one of everything.
func seed(t testing.TB, store queue.Queue, dir string) {
	t.Helper()
	tried := func(m queue.Mail, s queue.State, o relay.Outcome) queue.Mail {
		for i := range m.Recipients {
			r := &m.Recipients[i]
			r.State, r.Attempts = s, 1
			r.History = []queue.Attempt{{Started: noon.Add(time.Hour), Outcome: o}}
			if s == queue.Sent || s == queue.Failed {
				r.Ended = noon.Add(2 * time.Hour)
			}
		}
		return m
	}
	later := tried(mail("ab2", 3, "shop@example.com", "later", "late@example.net"), queue.Waiting,
		relay.Outcome{Status: 503, Detail: "maintenance", Took: 1500 * time.Millisecond})
	later.Recipients[0].Due = time.Date(2999, 1, 1, 0, 0, 0, 0, time.UTC)
	must(t, store.Enqueue(t.Context(),
		mail("aa1", 0, "shop@example.com", "Subject: 1\r\n\r\nx\r\n", "a@example.net", "B@example.net"),
		mail("ab1", 1, "", "bounce", "shop@example.com"),
		later,
		tried(mail("ba1", 4, "shop@example.com", "held", "h@example.net"), queue.Held, relay.Outcome{Cause: errors.New("connection refused")}),
		tried(mail("ba2", 5, "news@example.org", "sent", "s@example.net"), queue.Sent, relay.Outcome{Kind: relay.Accepted, Status: 200, MessageID: "m-1"}),
		tried(mail("bb1", 6, "news@example.org", "failed", "f@example.net"), queue.Failed, relay.Outcome{Kind: relay.Refused, Status: 422, Detail: "to: no such domain"}),
		mail("ca1", 7, hostile, "hostile", hostile),
		mail("da1", 8, "big@example.org", strings.Repeat("0123456789abcde\n", 1<<16), "big@example.net"),
		mail("db1", 9, "big@example.org", strings.Repeat("will be damaged\n", 1<<16), "dam@example.net"),
	))
	damage(t, dir, "will be damaged")
}

// damage flips a bit at the end of the spool file that begins with something.
func damage(t testing.TB, dir, begin string) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "spool", "*"))
	must(t, err)
	for _, name := range files {
		b, err := os.ReadFile(name)
		must(t, err)
		if strings.HasPrefix(string(b), begin) {
			b[len(b)-2] ^= 1
			must(t, os.WriteFile(name, b, 0o600))
			return
		}
	}
	t.Fatalf("no file of %d in the spool begins with %q", len(files), begin)
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// socketPath is short: a test's own directory can be too long for a socket.
func socketPath(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "adm")
	must(t, err)
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	return filepath.Join(dir, "admin.sock")
}

// serve runs a server for one test and returns its socket.
func serve(t testing.TB, a Admin) (*Server, string) {
	t.Helper()
	path := socketPath(t)
	s := NewServer(ServerOptions{Admin: a, Path: path})
	must(t, s.Start(t.Context()))
	t.Cleanup(func() { stop(t, s) })
	return s, path
}

func stop(t testing.TB, s *Server) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	if err := s.Stop(ctx); err != nil {
		t.Errorf("Stop: %v", err)
	}
}

// dialed is a client of a server that runs for one test.
func dialed(t testing.TB, a Admin) *Client {
	t.Helper()
	_, path := serve(t, a)
	c, err := Dial(t.Context(), path)
	must(t, err)
	return c
}

// kinds are the errors that must be told apart on both sides of the socket.
func kinds(err error) string {
	var kinds []string
	for _, c := range codes() {
		if errors.Is(err, c.err) {
			kinds = append(kinds, c.name)
		}
	}
	var ambiguous *AmbiguousError
	if errors.As(err, &ambiguous) {
		kinds = append(kinds, fmt.Sprintf("%+v", *ambiguous))
	}
	return strings.Join(kinds, " ")
}
