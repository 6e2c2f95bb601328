package load

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

	"github.com/smtp2rest/smtp2rest/test/harness"
)

// More clients than the process may have files open: it says so, goes on, and
// serves whoever comes when some have gone.
func TestOutOfFiles(t *testing.T) {
	const files, clients = 64, 100
	serve := exec.Command("sh", "-c", `ulimit -n "$1"; shift; exec "$@"`, "sh", strconv.Itoa(files), harness.Binary(t), "serve", "--sandbox", "--config", harness.ConfigFile(t, `
[limits]
connections_per_address = 200
[[listener]]
address = "127.0.0.1:0"
`))
	p := harness.LaunchCommand(t, harness.Environ(t), serve)
	address := p.Await(p.Err, `msg=listening address=(127\.0\.0\.1:\d+)`)
	var held []net.Conn
	for range clients {
		conn, err := net.DialTimeout("tcp", address, harness.Patience)
		if err != nil {
			t.Fatal(err) // the kernel has room for those that wait
		}
		defer conn.Close()
		held = append(held, conn)
	}
	p.Await(p.Err, `cannot accept connections.*too many open files`)
	for _, conn := range held[:clients-1] {
		_ = conn.Close()
	}
	last := held[clients-1] // it waited for its turn
	_ = last.SetDeadline(time.Now().Add(harness.Patience))
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
	if n := strings.Count(p.Err.String(), "cannot accept connections"); n > 100 {
		t.Errorf("it says %d times that it cannot accept connections", n)
	}
	p.Signal(syscall.SIGTERM)
	if code := p.Exit(); code != 0 {
		t.Errorf("it ended with %d", code)
	}
}
