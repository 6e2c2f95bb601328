package systemd

import (
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/smtp2rest/smtp2rest/test/harness"
)

// mailBy hands a mail over on a connection.
func mailBy(t *testing.T, network, address string) {
	t.Helper()
	conn, err := net.DialTimeout(network, address, harness.Patience)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	_ = conn.SetDeadline(time.Now().Add(harness.Patience))
	c := harness.NewClient(t, conn)
	c.Do("", "220 ", "EHLO c", "250 ", "MAIL FROM:<zoe@sandbox.example>", "250 ", "RCPT TO:<bob@example.net>", "250 ",
		"DATA", "354 ", "Subject: x\r\n\r\nx\r\n.", "250 2.0.0 accepted ", "QUIT", "221 ")
}

func TestUnixSocket(t *testing.T) {
	path := filepath.Join(t.TempDir(), "smtp")
	p := harness.Launch(t, harness.Environ(t), "serve", "--sandbox", "--config", harness.ConfigFile(t, "[[listener]]\naddress = \"unix:"+path+"\"\n"))
	_ = p.Await(p.Out, `SMTP +(/\S+)`)
	mailBy(t, "unix", path)
}

// Sockets come as systemd passes them on. One that no listener takes over is
// named in the log.
func TestSocketActivation(t *testing.T) {
	var files []*os.File
	var addresses []string
	for range 3 {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = l.Close() }()
		f, err := l.(*net.TCPListener).File()
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = f.Close() }()
		files, addresses = append(files, f), append(addresses, l.Addr().String())
	}
	cmd := exec.Command("sh", "-c", `LISTEN_PID=$$ LISTEN_FDS=3 LISTEN_FDNAMES=smtp:other:smtp exec "$0" "$@"`,
		harness.Binary(t), "serve", "--sandbox", "--config", harness.ConfigFile(t, "[[listener]]\naddress = \"systemd:smtp\"\n"))
	cmd.ExtraFiles = files
	p := harness.LaunchCommand(t, harness.Environ(t), cmd)
	_ = p.Await(p.Out, `SMTP +(127\.0\.0\.1:\d+)`)
	if name := p.Await(p.Err, `systemd opened a socket that no .*name=(\w+)`); name != "other" {
		t.Errorf("the log names %q", name)
	}
	mailBy(t, "tcp", addresses[0])
	mailBy(t, "tcp", addresses[2])
}

// A socket that systemd opened at a listener's own address is that listener's, so that the
// settings need not name it: the address is taken, and only systemd's socket can have it.
func TestSocketActivationByAddress(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	f, err := l.(*net.TCPListener).File()
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	address := l.Addr().String()
	cmd := exec.Command("sh", "-c", `LISTEN_PID=$$ LISTEN_FDS=1 LISTEN_FDNAMES=any exec "$0" "$@"`,
		harness.Binary(t), "serve", "--sandbox", "--config", harness.ConfigFile(t, "[[listener]]\naddress = \""+address+"\"\n"))
	cmd.ExtraFiles = []*os.File{f}
	p := harness.LaunchCommand(t, harness.Environ(t), cmd)
	_ = p.Await(p.Out, `SMTP +(127\.0\.0\.1:\d+)`)
	mailBy(t, "tcp", address)
	if said := p.Err.String(); strings.Contains(said, "no [[listener]] uses") {
		t.Errorf("the log says %s", said)
	}
}

// Over LMTP every recipient has its own reply.
func TestSwaksLMTP(t *testing.T) {
	swaks := harness.Tool(t, "swaks")
	s := harness.ServeSandbox(t, "protocol = \"lmtp\"\n")
	host, port := harness.HostPort(t, s.SMTP)
	r := harness.ExecuteTool(t, harness.Environ(t), harness.ClientMail, swaks, "--protocol", "LMTP", "--server", host, "--port", port, "--helo", "client.test",
		"--from", "zoe@sandbox.example", "--to", "bob@example.net,suppressed@example.net", "--data", "-")
	if !strings.Contains(r.Out, "250 2.0.0 <bob@example.net> accepted ") || !strings.Contains(r.Out, " <suppressed@example.net> ") {
		t.Fatalf("%+v", r)
	}
	harness.Taken(t, s, "bob@example.net")
}
