//go:build linux

// Package load looks at what the relay uses: when much comes at once, when it has
// run out of something, and when it has nothing to do.
package load

import (
	"bufio"
	"bytes"
	"encoding/base64"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/smtp2rest/smtp2rest/test/harness"
)

func TestMain(m *testing.M) { os.Exit(harness.Main(m)) }

// flood is how much comes at once.
type flood struct {
	memory, idle, senders, size int
}

// theFlood is a small one by default; CI has the whole.
func theFlood() flood {
	if harness.All() {
		return flood{memory: 256 << 20, idle: 2000, senders: 200, size: 10 << 20}
	}
	return flood{memory: 64 << 20, idle: 200, senders: 30, size: 4 << 20}
}

// Many idle clients, then many that send large mail at once: the process stays
// within the budget and what it needs besides, whoever is told no is told 4xx,
// and in the end all mail was taken.
func TestMemoryUnderFlood(t *testing.T) {
	f := theFlood()
	openFiles(t, uint64(f.idle+2*f.senders+200))
	sink := newMailSink(t, f.senders)
	p := harness.Launch(t, harness.Environ(t, "NEXUSPROMAIL_API_URL="+sink.URL, "NEXUSPROMAIL_API_KEY=key-for-a-test", "FROM_EMAIL=hello@mail.example.com"),
		"serve", "--config", harness.ConfigFile(t, fmt.Sprintf(`
[limits]
memory = "%dMiB"
connections = %d
connections_per_address = %d
[mail]
attachments = "send"
[[listener]]
address = "127.0.0.1:0"
`, f.memory>>20, f.idle+2*f.senders, f.idle+2*f.senders)))
	address := p.Await(p.Err, `listening.*address=(127\.0\.0\.1:\d+)`)
	fresh := resident(t, p, "VmRSS")
	idle(t, address, f.idle)
	quiet := resident(t, p, "VmRSS")
	used := processorTime(t, p)

	began := time.Now()
	told := sendAll(t, address, f)
	mails := sink.wait()
	took := time.Since(began)
	peak := resident(t, p, "VmHWM")
	t.Logf("%d KiB when started, %d KiB with %d idle clients (%d KiB each), %d KiB at most while %d clients sent %d MiB each in %v, with a budget of %d MiB; %d mails, told %v; %v of processor time until the flood",
		fresh, quiet, f.idle, (quiet-fresh)/f.idle, peak, f.senders, f.size>>20, took.Round(time.Millisecond), f.memory>>20, mails, told, used)
	if most := f.memory>>10 + 64<<10; peak > most {
		t.Errorf("%d KiB of memory were in use; the budget and 64 MiB are %d KiB", peak, most)
	}
	if mails != f.senders || told["250"] != f.senders {
		t.Errorf("%d mails, told %v", mails, told)
	}
	for code := range told {
		if code != "250" && !strings.HasPrefix(code, "4") {
			t.Errorf("%d were told %s", told[code], code)
		}
	}
	p.Signal(syscall.SIGTERM)
	if code := p.Exit(); code != 0 {
		t.Errorf("it ended with %d", code)
	}
}

// mailSink is an API that takes every mail, and tells when it has so many: what
// a client was told is queued comes later, and on a busy machine more than once.
type mailSink struct {
	*httptest.Server
	all chan struct{} // closed when all have come

	mu    sync.Mutex
	mails map[string]bool // by Idempotency-Key
}

func newMailSink(t *testing.T, all int) *mailSink {
	s := &mailSink{all: make(chan struct{}), mails: map[string]bool{}}
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		key := r.Header.Get("Idempotency-Key")
		s.mu.Lock()
		defer s.mu.Unlock()
		if !s.mails[key] {
			s.mails[key] = true
			if len(s.mails) == all {
				close(s.all)
			}
		}
		fmt.Fprintf(w, `{"message_id":"msg_%d"}`, len(s.mails))
	}))
	t.Cleanup(s.Close)
	return s
}

// wait waits until all have come, and returns how many there are.
func (s *mailSink) wait() int {
	select {
	case <-s.all:
	case <-time.After(10 * harness.Patience):
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.mails)
}

// sendAll has each sender send one mail, again until it is taken, and counts
// what they were told. Every second one does not say how large it is. All stay
// connected, so that nothing of a mail may stay where its client does.
func sendAll(t *testing.T, address string, f flood) map[string]int {
	mail := largeMail(f.size)
	var mu sync.Mutex
	told := map[string]int{}
	var wg sync.WaitGroup
	for i := range f.senders {
		wg.Go(func() {
			for {
				code, err := sendOnce(t, address, mail, i%2 == 0)
				if err != nil {
					t.Errorf("sender %d: %v", i, err)
					return
				}
				mu.Lock()
				told[code]++
				mu.Unlock()
				if !strings.HasPrefix(code, "4") {
					return
				}
			}
		})
	}
	wg.Wait()
	return told
}

// sendOnce returns the code that ended the attempt.
func sendOnce(t *testing.T, address string, mail []byte, announce bool) (code string, err error) {
	conn, err := net.Dial("tcp", address)
	if err != nil {
		return "", err
	}
	t.Cleanup(func() { _ = conn.Close() })
	defer func() {
		if code != "250" {
			_ = conn.Close()
		}
	}()
	_ = conn.SetDeadline(time.Now().Add(10 * time.Minute))
	r := bufio.NewReader(conn)
	size := ""
	if announce {
		size = " SIZE=" + strconv.Itoa(len(mail))
	}
	for _, step := range [][2]string{
		{"", "220"}, {"EHLO flood\r\n", "250"}, {"MAIL FROM:<a@mail.example.com>" + size + "\r\n", "250"}, {"RCPT TO:<b@example.net>\r\n", "250"},
		{"DATA\r\n", "354"}, {string(mail) + "\r\n.\r\n", "250"},
	} {
		if _, err := io.WriteString(conn, step[0]); err != nil {
			return "", err
		}
		line := "-----"
		for len(line) > 3 && line[3] == '-' {
			if line, err = r.ReadString('\n'); err != nil {
				return "", fmt.Errorf("after %.10q: %w", step[0], err)
			}
		}
		if code := line[:3]; code != step[1] {
			return code, nil
		}
	}
	return "250", nil
}

func largeMail(size int) []byte {
	var b bytes.Buffer
	b.WriteString("From: a@mail.example.com\r\nSubject: large\r\nMIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n" +
		"--b\r\nContent-Type: text/plain\r\n\r\nSee the file.\r\n--b\r\nContent-Type: application/pdf\r\nContent-Disposition: attachment; filename=report.pdf\r\n" +
		"Content-Transfer-Encoding: base64\r\n\r\n")
	line := base64.StdEncoding.EncodeToString(bytes.Repeat([]byte("report "), 9)[:57]) + "\r\n"
	b.WriteString(strings.Repeat(line, (size-b.Len())/len(line)))
	b.WriteString("--b--")
	return b.Bytes()
}

// idle connects so many clients, which say nothing more.
func idle(t *testing.T, address string, n int) {
	t.Helper()
	for range n {
		conn, err := net.Dial("tcp", address)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = conn.Close() })
		_ = conn.SetDeadline(time.Now().Add(harness.Patience))
		r := bufio.NewReader(conn)
		for _, said := range []string{"", "NOOP\r\n"} { // nothing is said before the greeting
			if _, err := io.WriteString(conn, said); err != nil {
				t.Fatal(err)
			}
			if line, err := r.ReadString('\n'); err != nil {
				t.Fatalf("%q, %v", line, err)
			}
		}
	}
}

// resident is a line of /proc/PID/status, in KiB.
func resident(t *testing.T, p *harness.Process, name string) int {
	t.Helper()
	status, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(p.Cmd.Process.Pid), "status"))
	if err != nil {
		t.Skipf("there is no /proc: %v", err)
	}
	m := regexp.MustCompile(name + `:\s+(\d+) kB`).FindSubmatch(status)
	if m == nil {
		t.Fatalf("no %s in %s", name, status)
	}
	n, _ := strconv.Atoi(string(m[1])) // they are digits
	return n
}

// processorTime is what the process has used so far.
func processorTime(t *testing.T, p *harness.Process) time.Duration {
	t.Helper()
	stat, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(p.Cmd.Process.Pid), "stat"))
	if err != nil {
		t.Fatal(err)
	}
	fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
	user, _ := strconv.Atoi(fields[11])
	system, _ := strconv.Atoi(fields[12])
	return time.Duration(user+system) * 10 * time.Millisecond // USER_HZ is 100 everywhere
}

// openFiles makes sure that this process, and those it starts, may have as many
// files open.
func openFiles(t *testing.T, n uint64) {
	t.Helper()
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	if limit.Cur >= n {
		return
	}
	if limit.Max < n {
		t.Skipf("%d files may be open, and this test needs %d", limit.Max, n)
	}
	limit.Cur = limit.Max
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
}
