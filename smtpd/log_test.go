package smtpd

import (
	"bufio"
	"bytes"
	"encoding/json"
	"io"
	"log/slog"
	"net"
	"strings"
	"sync"
	"testing"

	"github.com/smtp2rest/smtp2rest/internal/settings"
	"github.com/smtp2rest/smtp2rest/smtpd/reply"
)

// records keeps log records as a server's goroutines write them.
type records struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (r *records) Write(p []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.buf.Write(p)
}

func (r *records) all(t *testing.T) (list []map[string]any) {
	t.Helper()
	r.mu.Lock()
	defer r.mu.Unlock()
	for line := range strings.Lines(r.buf.String()) {
		var m map[string]any
		if err := json.Unmarshal([]byte(line), &m); err != nil {
			t.Fatal(err)
		}
		list = append(list, m)
	}
	return list
}

// The log tells each refusal with its reason, and never what was in a mail or
// in a command that can hold a secret.
func TestLog(t *testing.T) {
	var log records
	s := start(t, &fakeBackend{}, func(o *Options) {
		o.Log = slog.New(slog.NewJSONHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	})
	c := dial(t, s)
	c.open()
	c.do("RCPT TO:<broken@d.test>", "451 ", "AUTH PLAIN secret", "502 ", "secret", "500 ", "DATA", "354 ", "Subject: secret\r\n\r\nsecret\r\n.", "250 ", "QUIT", "221 ")
	waitFor(t, s, 0)
	stopWithin(t, s, patience)

	type entry struct{ level, msg, command, address, reply, cause string }
	var got []entry
	for _, r := range log.all(t) {
		if r["client"] != c.conn.LocalAddr().String() || len(r["session"].(string)) != 8 {
			t.Errorf("whose is %v?", r)
		}
		text := func(key string) string { s, _ := r[key].(string); return s }
		got = append(got, entry{text("level"), text("msg"), text("command"), text("address"), text("reply"), text("cause")})
	}
	want := []entry{
		{"DEBUG", "session opened", "", "", "", ""},
		{"INFO", "refused", "RCPT", "broken@d.test", "451 4.3.0 local error, try again later", "dial tcp 10.0.0.1:5432: password=hunter2"},
		{"INFO", "refused", "AUTH", "", "502 5.5.1 AUTH is not available here", ""},
		{"INFO", "refused", "", "", "500 5.5.2 command not recognized", ""},
		{"DEBUG", "session closed", "", "", "", ""},
	}
	for i := range max(len(got), len(want)) {
		if i >= len(got) || i >= len(want) || got[i] != want[i] {
			t.Fatalf("line %d of the log\ngot  %v\nwant %v", i, got, want)
		}
	}
	if strings.Contains(log.buf.String(), "secret") {
		t.Errorf("a secret in %s", log.buf.String())
	}
}

// A bug in reading commands, which go-smtp does not catch, ends one connection.
func TestPanicInFilter(t *testing.T) {
	ours, theirs := net.Pipe()
	defer theirs.Close()
	got := make(chan string, 1)
	go func() {
		line, _ := bufio.NewReader(theirs).ReadString('\n')
		got <- line
	}()
	var panics int
	log := slog.New(slog.DiscardHandler)
	f := &filter{conn: &conn{Conn: ours, socket: &socket{Conn: ours}, limits: settings.Defaults[Limits](), log: log, in: nil, metrics: newMetrics(nil), onClose: func() {}}}
	f.session = &session{filter: f, server: &Server{options: Options{Panicked: func(any) { panics++ }}}}
	if n, err := f.Read(make([]byte, 10)); n != 0 || err != io.EOF {
		t.Errorf("Read gives %d, %v", n, err)
	}
	if line := <-got; line != reply.Bug().String()+"\r\n" || panics != 1 {
		t.Errorf("the client got %q, %d panics were counted", line, panics)
	}
	if err := f.Close(); err != nil {
		t.Error(err)
	}
}
