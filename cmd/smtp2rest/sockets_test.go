package main

import (
	"bufio"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// mailBy hands a mail over on a connection.
func mailBy(t *testing.T, network, address string) {
	t.Helper()
	conn, err := net.DialTimeout(network, address, patience)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	_ = conn.SetDeadline(time.Now().Add(patience))
	c := &client{t, conn, bufio.NewReader(conn)}
	c.do("", "220 ", "EHLO c", "250 ", "MAIL FROM:<zoe@sandbox.example>", "250 ", "RCPT TO:<bob@example.net>", "250 ",
		"DATA", "354 ", "Subject: x\r\n\r\nx\r\n.", "250 2.0.0 accepted ", "QUIT", "221 ")
}

func TestUnixSocket(t *testing.T) {
	path := filepath.Join(t.TempDir(), "smtp")
	p := launch(t, environ(t), "serve", "--sandbox", "--config", configFile(t, "[[listener]]\naddress = \"unix:"+path+"\"\n"))
	_ = p.await(p.out, `SMTP +(/\S+)`)
	mailBy(t, "unix", path)
}

// The socket comes as systemd passes it on.
func TestSocketActivation(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	f, err := l.(*net.TCPListener).File()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command("sh", "-c", `LISTEN_PID=$$ LISTEN_FDS=1 LISTEN_FDNAMES=smtp exec "$0" "$@"`,
		binary, "serve", "--sandbox", "--config", configFile(t, "[[listener]]\naddress = \"systemd:smtp\"\n"))
	cmd.ExtraFiles = []*os.File{f}
	p := launchCommand(t, environ(t), cmd)
	_ = f.Close()
	_ = p.await(p.out, `SMTP +(127\.0\.0\.1:\d+)`)
	mailBy(t, "tcp", l.Addr().String())
}

// Over LMTP every recipient has its own reply.
func TestSwaksLMTP(t *testing.T) {
	swaks := tool(t, "swaks")
	s := serveSandbox(t, "protocol = \"lmtp\"\n")
	host, port := hostPort(t, s.smtp)
	r := executeTool(t, environ(t), clientMail, swaks, "--protocol", "LMTP", "--server", host, "--port", port, "--helo", "client.test",
		"--from", "zoe@sandbox.example", "--to", "bob@example.net,suppressed@example.net", "--data", "-")
	if !strings.Contains(r.out, "250 2.0.0 <bob@example.net> accepted ") || !strings.Contains(r.out, " <suppressed@example.net> ") {
		t.Fatalf("%+v", r)
	}
	taken(t, s, "bob@example.net")
}
