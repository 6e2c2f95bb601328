package main

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"sync/atomic"
	"time"
)

// sink is a provider that takes everything at once.
type sink struct {
	server *httptest.Server
	calls  atomic.Int64
}

func newSink() *sink {
	s := &sink{}
	s.server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body)
		w.Header().Set("Content-Type", "application/json")
		_, _ = fmt.Fprintf(w, `{"message_id":"msg_%d"}`, s.calls.Add(1))
	}))
	return s
}

func (s *sink) url() string { return s.server.URL }
func (s *sink) count() int  { return int(s.calls.Load()) }
func (s *sink) close()      { s.server.Close() }

// proc is the process of a relay.
type proc struct {
	cmd     *exec.Cmd
	address string
	dir     string
}

const relayConfig = `[api]
path = "/send"
[sender]
email = "app@mail.example.com"
[limits]
connections = 1000
connections_per_address = 1000
[log]
level = "warn"
[[listener]]
address = %q
`

// start runs a system on a free port.
func start(system, relay, api string) (*proc, error) {
	dir, err := os.MkdirTemp("", "smtp2rest-bench-")
	if err != nil {
		return nil, err
	}
	p := &proc{dir: dir, address: freePort()}
	if system == "bare" {
		self, err := os.Executable()
		if err != nil {
			return nil, err
		}
		p.cmd = exec.Command(self, "-bare", p.address)
	} else {
		config := filepath.Join(dir, "config.toml")
		if err := os.WriteFile(config, []byte(fmt.Sprintf(relayConfig, p.address)), 0o600); err != nil {
			return nil, err
		}
		p.cmd = exec.Command(relay, "serve", "--config", config)
	}
	p.cmd.Env = append(os.Environ(), "NEXUSPROMAIL_API_URL="+api, "NEXUSPROMAIL_API_KEY=k", "SMTP2REST_DATA_DIR="+filepath.Join(dir, "data"))
	p.cmd.Stderr = os.Stderr
	if err := p.cmd.Start(); err != nil {
		return nil, err
	}
	return p, p.await()
}

func freePort() string {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "127.0.0.1:0"
	}
	defer func() { _ = ln.Close() }()
	return ln.Addr().String()
}

func (p *proc) await() error {
	for range 200 {
		conn, err := net.Dial("tcp", p.address)
		if err == nil {
			_, err = bufio.NewReader(conn).ReadString('\n')
			_ = conn.Close()
			return err
		}
		time.Sleep(20 * time.Millisecond)
	}
	p.stop()
	return fmt.Errorf("%v does not listen", p.cmd.Args)
}

func (p *proc) stop() {
	_ = p.cmd.Process.Kill()
	_ = p.cmd.Wait()
	_ = os.RemoveAll(p.dir)
}

// cpu returns the processor time used so far, in steps of 10 ms.
func (p *proc) cpu() time.Duration {
	text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/stat", p.cmd.Process.Pid))
	_, rest, _ := strings.Cut(string(text), ") ")
	fields := strings.Fields(rest)
	if len(fields) < 13 {
		return 0
	}
	user, _ := strconv.Atoi(fields[11])
	system, _ := strconv.Atoi(fields[12])
	return time.Duration(user+system) * 10 * time.Millisecond
}

// peak returns the most memory that it had, in MiB.
func (p *proc) peak() float64 {
	text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/status", p.cmd.Process.Pid))
	m := regexp.MustCompile(`VmHWM:\s+(\d+) kB`).FindSubmatch(text)
	if m == nil {
		return 0
	}
	kib, _ := strconv.ParseFloat(string(m[1]), 64)
	return kib / 1024
}
