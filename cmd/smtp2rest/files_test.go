package main

import (
	"bufio"
	"io"
	"net"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// More clients than the process may have files open: it says so, goes on, and
// serves whoever comes when some have gone.
func TestOutOfFiles(t *testing.T) {
	const files, clients = 64, 100
	serve := exec.Command("sh", "-c", `ulimit -n "$1"; shift; exec "$@"`, "sh", strconv.Itoa(files), binary, "serve", "--sandbox", "--config", configFile(t, `
[limits]
connections_per_address = 200
[[listener]]
address = "127.0.0.1:0"
`))
	p := launchCommand(t, environ(t), serve)
	address := p.await(p.err, `msg=listening address=(127\.0\.0\.1:\d+)`)
	var held []net.Conn
	for range clients {
		conn, err := net.DialTimeout("tcp", address, patience)
		if err != nil {
			t.Fatal(err) // the kernel has room for those that wait
		}
		defer conn.Close()
		held = append(held, conn)
	}
	p.await(p.err, `cannot accept connections.*too many open files`)
	for _, conn := range held[:clients-1] {
		_ = conn.Close()
	}
	last := held[clients-1] // it waited for its turn
	_ = last.SetDeadline(time.Now().Add(patience))
	r := bufio.NewReader(last)
	for _, step := range [][2]string{
		{"", "220 "}, {"HELO c\r\n", "250 "}, {"MAIL FROM:<a@sandbox.example>\r\n", "250 "}, {"RCPT TO:<b@example.net>\r\n", "250 "},
		{"DATA\r\n", "354 "}, {"From: a@sandbox.example\r\nSubject: s\r\n\r\nx\r\n.\r\n", "250 2.0.0 accepted"},
	} {
		if _, err := io.WriteString(last, step[0]); err != nil {
			t.Fatal(err)
		}
		if line, err := r.ReadString('\n'); err != nil || !strings.HasPrefix(line, step[1]) {
			t.Fatalf("%.20q is answered %q, %v", step[0], line, err)
		}
	}
	if n := strings.Count(p.err.String(), "cannot accept connections"); n > 100 {
		t.Errorf("it says %d times that it cannot accept connections", n)
	}
	p.signal(syscall.SIGTERM)
	if code := p.exit(); code != 0 {
		t.Errorf("it ended with %d", code)
	}
}
