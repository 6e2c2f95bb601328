//go:build unix

package main

import (
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/smtp2rest/smtp2rest/cmd/smtp2rest/internal/terminal"
)

// TestALife is a relay as an operator has it: started, changed for better and
// worse, its certificate and key renewed, stopped under load, started again.
// Every mail that was answered 250 is at the API in the end, each once.
func TestALife(t *testing.T) {
	_, env, sandbox := sandboxProcess(t, "--key", plantedKey)
	s := start{t: t, dir: t.TempDir()}
	s.env = environ(t, "FROM_EMAIL=hello@mail.example.com", env[0])
	for i, v := range s.env { // the file is to say it
		s.env[i] = strings.Replace(v, "SMTP2REST_DATA_DIR=", "UNUSED=", 1)
	}
	cert, key := s.certificate("one.example.com")
	secret := s.write("secret", "not-the-key-yet", 0o600)
	socket := filepath.Join(s.dir, "admin.sock")
	settings := func(more string) string {
		return fmt.Sprintf("[api]\nkey_file = %q\n[queue]\ndata_dir = %q\n[admin]\nsocket = %q\n[delivery]\nwait = \"0s\"\nretry_first = \"1s\"\n"+
			"[[listener]]\naddress = \"127.0.0.1:0\"\ntls = \"starttls\"\ncert_file = %q\nkey_file = %q\n%s", secret, s.path("queue"), socket, cert, key, more)
	}
	file := s.write("config.toml", settings(""), 0o600)
	p := launch(t, s.env, "serve", "--config", file)
	address := p.await(p.err, `msg=listening address=(\S+)`)

	reload := func(code int, want ...string) {
		t.Helper()
		r := execute(t, environ(t), "", "reload", "--socket", socket)
		for _, w := range want {
			if r.code != code || !strings.Contains(r.all(), w) {
				t.Errorf("reload: %+v, want %d and %q", r, code, w)
			}
		}
		if strings.Contains(r.all(), "PlantedKey") {
			t.Error("reload shows the key")
		}
	}
	open := dial(t, address)
	open.do("", "220 ", "EHLO client.test", "250 ")
	reload(0, "Reloaded; nothing changed.")
	rewrite(t, file, settings("[limits]\nrecipients = 0\nconections = 7\n"))
	reload(78, "the configuration was not taken; the one from before stays in force", "limits.recipients: found 0", "did you mean connections?")
	rewrite(t, file, strings.Replace(settings(""), "/queue\"", "/elsewhere\"", 1))
	reload(78, "queue.data_dir: found", "which takes a restart: the queue in it is open; restart smtp2rest")
	rewrite(t, secret, plantedKey+"\n")
	rewrite(t, file, settings("[rules]\ndeny_recipients = [\"@denied.test\"]\n"))
	reload(0, "[] → [\"@denied.test\"]", "api.key", "set, not shown")
	open.do("MAIL FROM:<shop@sandbox.example>", "250 ", "RCPT TO:<a@denied.test>", "550 5.7.1", "RSET", "250 ")

	if got := certificateAt(t, address); got != "one.example.com" {
		t.Errorf("the certificate is of %s", got)
	}
	again, newKey := s.certificate("two.example.com")
	for from, to := range map[string]string{again: cert, newKey: key} {
		if err := os.Rename(from, to); err != nil {
			t.Fatal(err)
		}
	}
	reload(0, "one.example.com.pem", "other content", "2 settings changed")
	if got := certificateAt(t, address); got != "two.example.com" {
		t.Errorf("after the renewal the certificate is of %s", got)
	}
	open.do("NOOP", "250 ")

	kept := stopUnderLoad(t, p, address)
	if r := execute(t, environ(t), "", "reload", "--socket", socket); r.code != terminal.ExitStopped {
		t.Errorf("reload of a stopped relay: %+v", r)
	}
	p = launch(t, s.env, "serve", "--config", file)
	p.await(p.err, `msg=listening address=(\S+)`)
	arrive(t, sandbox, kept)
	p.signal(syscall.SIGINT)
	if code := p.exit(); code != 0 {
		t.Errorf("exit code %d", code)
	}
}

// certificateAt is the name in the certificate that a new client sees.
func certificateAt(t *testing.T, address string) string {
	t.Helper()
	c := dial(t, address)
	c.do("", "220 ", "EHLO client.test", "250 ", "STARTTLS", "220 ")
	conn := tls.Client(c.conn, &tls.Config{InsecureSkipVerify: true}) //nolint:gosec // a test
	if err := conn.Handshake(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	return conn.ConnectionState().PeerCertificates[0].Subject.CommonName
}

// stopUnderLoad stops the relay while clients hand over mail, and returns whom
// it answered 250 for.
func stopUnderLoad(t *testing.T, p *process, address string) map[string]bool {
	t.Helper()
	kept := map[string]bool{}
	enough := make(chan struct{})
	var mu sync.Mutex
	var clients sync.WaitGroup
	for i := range 6 {
		clients.Go(func() {
			for n := 0; ; n++ {
				to := fmt.Sprintf("c%d-%d@example.net", i, n)
				if !handOver(address, to) {
					return
				}
				mu.Lock()
				kept[to] = true
				if len(kept) == 60 {
					close(enough)
				}
				mu.Unlock()
			}
		})
	}
	select {
	case <-enough:
	case <-time.After(patience):
		t.Fatal("no load comes")
	}
	p.signal(syscall.SIGTERM)
	p.signal(syscall.SIGTERM) // as timeout(1) and some supervisors do
	if code := p.exit(); code != 0 {
		t.Errorf("stopped under load it exits with %d", code)
	}
	clients.Wait()
	return kept
}

// handOver sends one mail on a connection of its own and reports a 250.
func handOver(address, to string) bool {
	conn, err := net.DialTimeout("tcp", address, patience)
	if err != nil {
		return false
	}
	defer func() { _ = conn.Close() }()
	_ = conn.SetDeadline(time.Now().Add(patience))
	said := make([]byte, 4096)
	for _, step := range [][2]string{{"", "220"}, {"EHLO c\r\n", "250"}, {"MAIL FROM:<shop@sandbox.example>\r\n", "250"}, {"RCPT TO:<" + to + ">\r\n", "250"},
		{"DATA\r\n", "354"}, {"Subject: s\r\n\r\nb\r\n.\r\n", "250"}} {
		if _, err := io.WriteString(conn, step[0]); err != nil {
			return false
		}
		n, err := conn.Read(said) // a reply is one write
		if err != nil || !strings.HasPrefix(string(said[:n]), step[1]) {
			return false
		}
	}
	return true
}

// arrive waits until everyone has a mail, and finds who has more than one.
func arrive(t *testing.T, sandbox string, kept map[string]bool) {
	t.Helper()
	defer http.DefaultClient.CloseIdleConnections()
	deadline := time.Now().Add(patience)
	for {
		count, err := accepted(sandbox)
		if err != nil {
			t.Fatal(err)
		}
		missing := 0
		for to := range kept {
			if count[to] == 0 {
				missing++
			}
		}
		if missing == 0 {
			for to, n := range count {
				if n > 1 {
					t.Errorf("%s has %d", to, n)
				}
			}
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d of %d mails that were answered 250 do not arrive", missing, len(kept))
		}
	}
}

// accepted is how many mails the sandbox took for each recipient.
func accepted(sandbox string) (map[string]int, error) {
	resp, err := http.Get("http://" + sandbox + "/sandbox/calls")
	if err != nil {
		return nil, err
	}
	defer func() { _ = resp.Body.Close() }()
	var calls []call
	if err := json.NewDecoder(resp.Body).Decode(&calls); err != nil {
		return nil, errors.Join(errors.New("the sandbox's list"), err)
	}
	count := map[string]int{}
	for _, c := range calls {
		if c.Status == http.StatusOK {
			count[c.To]++
		}
	}
	return count, nil
}
