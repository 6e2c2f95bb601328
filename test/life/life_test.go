//go:build unix

// Package life has a relay live as an operator has it.
package life

import (
	"crypto/tls"
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

	"github.com/smtp2rest/smtp2rest/test/harness"
)

func TestMain(m *testing.M) { os.Exit(harness.Main(m)) }

// TestALife is a relay as an operator has it: started, changed for better and
// worse, its certificate and key renewed, stopped under load, started again.
// Every mail that was answered 250 is at the API in the end, each once.
func TestALife(t *testing.T) {
	_, env, sandbox := harness.SandboxProcess(t, "--key", harness.PlantedKey)
	dir := t.TempDir()
	relayEnv := harness.Environ(t, "FROM_EMAIL=hello@mail.example.com", env[0])
	for i, v := range relayEnv { // the file is to say it
		relayEnv[i] = strings.Replace(v, "SMTP2REST_DATA_DIR=", "UNUSED=", 1)
	}
	cert, key := harness.Certificate(t, dir, "one.example.com")
	secret, file, socket := filepath.Join(dir, "secret"), filepath.Join(dir, "config.toml"), filepath.Join(dir, "admin.sock")
	harness.Rewrite(t, secret, "not-the-key-yet")
	settings := func(more string) string {
		return fmt.Sprintf("[api]\nkey_file = %q\n[queue]\ndata_dir = %q\n[admin]\nsocket = %q\n[delivery]\nwait = \"0s\"\nretry_first = \"1s\"\n"+
			"[[listener]]\naddress = \"127.0.0.1:0\"\ntls = \"starttls\"\ncert_file = %q\nkey_file = %q\n%s", secret, filepath.Join(dir, "queue"), socket, cert, key, more)
	}
	harness.Rewrite(t, file, settings(""))
	p := harness.Launch(t, relayEnv, "serve", "--config", file)
	address := p.Await(p.Err, `msg=listening address=(\S+)`)

	reload := func(code int, want ...string) {
		t.Helper()
		r := harness.Execute(t, harness.Environ(t), "", "reload", "--socket", socket)
		for _, w := range want {
			if r.Code != code || !strings.Contains(r.All(), w) {
				t.Errorf("reload: %+v, want %d and %q", r, code, w)
			}
		}
		if strings.Contains(r.All(), "PlantedKey") {
			t.Error("reload shows the key")
		}
	}
	open := harness.Dial(t, address)
	open.Do("", "220 ", "EHLO client.test", "250 ")
	reload(0, "Reloaded; nothing changed.")
	harness.Rewrite(t, file, settings("[limits]\nrecipients = 0\nconections = 7\n"))
	reload(78, "the configuration was not taken; the one from before stays in force", "limits.recipients: found 0", "did you mean connections?")
	harness.Rewrite(t, file, strings.Replace(settings(""), "/queue\"", "/elsewhere\"", 1))
	reload(78, "queue.data_dir: found", "which takes a restart: the queue in it is open; restart smtp2rest")
	harness.Rewrite(t, secret, harness.PlantedKey+"\n")
	harness.Rewrite(t, file, settings("[rules]\ndeny_recipients = [\"@denied.test\"]\n"))
	reload(0, "[] → [\"@denied.test\"]", "api.key", "set, not shown")
	open.Do("MAIL FROM:<shop@sandbox.example>", "250 ", "RCPT TO:<a@denied.test>", "550 5.7.1", "RSET", "250 ")

	if got := certificateAt(t, address); got != "one.example.com" {
		t.Errorf("the certificate is of %s", got)
	}
	again, newKey := harness.Certificate(t, dir, "two.example.com")
	for from, to := range map[string]string{again: cert, newKey: key} {
		if err := os.Rename(from, to); err != nil {
			t.Fatal(err)
		}
	}
	reload(0, "one.example.com.pem", "other content", "2 settings changed")
	if got := certificateAt(t, address); got != "two.example.com" {
		t.Errorf("after the renewal the certificate is of %s", got)
	}
	open.Do("NOOP", "250 ")

	kept := stopUnderLoad(t, p, address)
	if r := harness.Execute(t, harness.Environ(t), "", "reload", "--socket", socket); r.Code != 3 {
		t.Errorf("reload of a stopped relay: %+v", r)
	}
	p = harness.Launch(t, relayEnv, "serve", "--config", file)
	p.Await(p.Err, `msg=listening address=(\S+)`)
	arrive(t, sandbox, kept)
	p.Signal(syscall.SIGINT)
	if code := p.Exit(); code != 0 {
		t.Errorf("exit code %d", code)
	}
}

// certificateAt is the name in the certificate that a new client sees.
func certificateAt(t *testing.T, address string) string {
	t.Helper()
	c := harness.Dial(t, address)
	c.Do("", "220 ", "EHLO client.test", "250 ", "STARTTLS", "220 ")
	conn := tls.Client(c.Conn, &tls.Config{InsecureSkipVerify: true}) //nolint:gosec // a test
	if err := conn.Handshake(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	return conn.ConnectionState().PeerCertificates[0].Subject.CommonName
}

// stopUnderLoad stops the relay while clients hand over mail, and returns whom
// it answered 250 for.
func stopUnderLoad(t *testing.T, p *harness.Process, address string) map[string]bool {
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
	case <-time.After(harness.Patience):
		t.Fatal("no load comes")
	}
	p.Signal(syscall.SIGTERM)
	p.Signal(syscall.SIGTERM) // as timeout(1) and some supervisors do
	if code := p.Exit(); code != 0 {
		t.Errorf("stopped under load it exits with %d", code)
	}
	clients.Wait()
	return kept
}

// handOver sends one mail on a connection of its own and reports a 250.
func handOver(address, to string) bool {
	conn, err := net.DialTimeout("tcp", address, harness.Patience)
	if err != nil {
		return false
	}
	defer func() { _ = conn.Close() }()
	_ = conn.SetDeadline(time.Now().Add(harness.Patience))
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
	deadline := time.Now().Add(harness.Patience)
	for {
		count := map[string]int{}
		for _, c := range harness.AllCalls(t, sandbox) {
			if c.Status == http.StatusOK {
				count[c.To]++
			}
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
