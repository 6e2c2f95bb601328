// Package pgtest runs a private PostgreSQL server for tests: made by initdb in a
// temporary directory, reached by a unix socket there, and removed with it. Where
// the server's programs are missing a test is skipped, and says how to get them.
package pgtest

import (
	"context"
	"crypto/rand"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"github.com/smtp2rest/smtp2rest/test/harness"
)

// TB is what it needs of a test or a benchmark.
type TB interface {
	Helper()
	Cleanup(func())
	Logf(format string, args ...any)
	Fatalf(format string, args ...any)
	Skipf(format string, args ...any)
}

// Server is a server that runs until its test ends.
type Server struct {
	tb       TB
	bin, dir string
	settings []string
	running  *exec.Cmd
	ended    chan struct{} // closed when running did
}

// Start starts a server. Settings are lines of postgresql.conf, such as
// "fsync=on": it is off without, because no test cuts the power.
func Start(tb TB, settings ...string) *Server {
	tb.Helper()
	bin := programs()
	if bin == "" {
		const missing = "PostgreSQL's server is not installed: apt-get install postgresql (or its initdb and postgres in PATH); it need not run"
		if harness.All() {
			tb.Fatalf("SMTP2REST_TEST=all, and %s", missing)
		}
		tb.Skipf(missing)
	}
	tmp := "/tmp" // and no longer directory, because the path of a socket is short
	if os.Getenv("TMPDIR") == harness.Memory {
		tmp = harness.Memory
	}
	dir, err := os.MkdirTemp(tmp, "pg")
	if err != nil {
		tb.Fatalf("%v", err)
	}
	s := &Server{tb: tb, bin: bin, dir: dir, settings: settings}
	tb.Cleanup(func() {
		s.Stop()
		_ = os.RemoveAll(dir)
	})
	if err := give(dir); err != nil {
		tb.Fatalf("%v", err)
	}
	if err := s.create(); err != nil {
		tb.Fatalf("%v", err)
	}
	s.Restart()
	return s
}

// create makes the server's files. initdb takes more than a second of the processor: what
// it made is kept for later tests, where that is allowed, and copied.
func (s *Server) create() error {
	initdb, err := os.Stat(filepath.Join(s.bin, "initdb"))
	if err != nil {
		return err
	}
	kept := filepath.Join(harness.Cache(), fmt.Sprintf("initdb-%x-%x", initdb.Size(), initdb.ModTime().Unix()))
	if exec.Command("cp", "-a", kept, s.data()).Run() == nil {
		return nil
	}
	_ = os.RemoveAll(s.data())
	out, err := s.command("initdb", "--pgdata="+s.data(), "--username=postgres", "--auth=trust", "--encoding=UTF8", "--no-locale", "--no-sync").CombinedOutput()
	if err != nil {
		return fmt.Errorf("initdb: %w\n%s", err, out)
	}
	part := kept + rand.Text()
	if os.MkdirAll(harness.Cache(), 0o755) != nil || exec.Command("cp", "-a", s.data(), part).Run() != nil || os.Rename(part, kept) != nil {
		_ = os.RemoveAll(part) // no room, no right, or another test was first
	}
	return nil
}

// programs is the directory that has initdb and postgres.
func programs() string {
	var dirs []string
	if name, err := exec.LookPath("initdb"); err == nil {
		dirs = append(dirs, filepath.Dir(name))
	}
	versions, _ := filepath.Glob("/usr/lib/postgresql/*/bin")
	slices.Reverse(versions)
	dirs = append(append(dirs, versions...), "/usr/local/pgsql/bin", "/opt/homebrew/bin")
	for _, dir := range dirs {
		_, initdb := os.Stat(filepath.Join(dir, "initdb"))
		_, postgres := os.Stat(filepath.Join(dir, "postgres"))
		if initdb == nil && postgres == nil {
			return dir
		}
	}
	return ""
}

func (s *Server) data() string { return filepath.Join(s.dir, "data") }

// Socket is the directory of the server's socket, as libpq names it.
func (s *Server) Socket() string { return s.dir }

// SocketFile is the socket itself.
func (s *Server) SocketFile() string { return filepath.Join(s.dir, ".s.PGSQL.5432") }

// URL names a database of the server.
func (s *Server) URL(database string) string {
	return "postgres://postgres@/" + database + "?host=" + url.QueryEscape(s.dir)
}

// Restart starts a server that was stopped or killed, and waits until it answers.
func (s *Server) Restart() {
	s.tb.Helper()
	deadline := time.Now().Add(2 * time.Minute)
	for {
		log, err := s.run()
		if err != nil {
			s.tb.Fatalf("postgres: %v", err)
		}
		if s.answers(deadline) {
			return
		}
		s.Stop()
		if time.Now().After(deadline) {
			text, _ := os.ReadFile(log)
			s.tb.Fatalf("PostgreSQL does not start:\n%s", text)
		}
		// After Kill the old processes may have been there still.
	}
}

func (s *Server) run() (log string, err error) {
	args := []string{"-D", s.data(), "-k", s.dir, "-c", "listen_addresses="}
	for _, setting := range append([]string{"fsync=off", "max_connections=200", "shared_buffers=64MB", "log_min_messages=warning"}, s.settings...) {
		args = append(args, "-c", setting)
	}
	log = filepath.Join(s.dir, "log")
	out, err := os.OpenFile(log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return "", err
	}
	defer func() { _ = out.Close() }()
	s.running, s.ended = s.command("postgres", args...), make(chan struct{})
	s.running.Stdout, s.running.Stderr = out, out
	if err := s.running.Start(); err != nil {
		return "", err
	}
	go func(cmd *exec.Cmd, ended chan struct{}) {
		_ = cmd.Wait()
		close(ended)
	}(s.running, s.ended)
	return log, nil
}

// answers waits until the server takes connections, or ended.
func (s *Server) answers(deadline time.Time) bool {
	again := time.NewTicker(20 * time.Millisecond)
	defer again.Stop()
	for time.Now().Before(deadline) {
		if err := s.exec("postgres", "SELECT 1"); err == nil {
			return true
		}
		select {
		case <-s.ended:
			return false
		case <-again.C:
		}
	}
	return false
}

func (s *Server) command(name string, args ...string) *exec.Cmd {
	cmd := exec.Command(filepath.Join(s.bin, name), args...)
	cmd.Dir = s.dir
	cmd.SysProcAttr = attributes()
	return cmd
}

// Stop ends the server and all of its connections, as a crash would. It is
// harmless when it does not run.
func (s *Server) Stop() { s.end((*os.Process).Signal) }

// Kill kills the server's first process, which leaves the others to find out.
func (s *Server) Kill() {
	s.end(func(p *os.Process, _ os.Signal) error { return p.Kill() })
}

func (s *Server) end(end func(*os.Process, os.Signal) error) {
	if s.running == nil {
		return
	}
	_ = end(s.running.Process, immediately())
	<-s.ended
	s.running = nil
}

// Exec runs statements in a database of the server.
func (s *Server) Exec(database, sql string) {
	s.tb.Helper()
	if err := s.exec(database, sql); err != nil {
		s.tb.Fatalf("%s: %v", sql, err)
	}
}

func (s *Server) exec(database, sql string) error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	c, err := pgx.Connect(ctx, s.URL(database))
	if err != nil {
		return err
	}
	defer func() { _ = c.Close(ctx) }()
	_, err = c.Exec(ctx, sql)
	return err
}

// Database makes an empty database and returns its name.
func (s *Server) Database() string {
	s.tb.Helper()
	name := "t" + strings.ToLower(rand.Text())
	s.Exec("postgres", fmt.Sprintf("CREATE DATABASE %s", name))
	return name
}

// Drop removes a database, with whoever is connected to it.
func (s *Server) Drop(database string) {
	s.tb.Helper()
	s.Exec("postgres", fmt.Sprintf("DROP DATABASE IF EXISTS %s WITH (FORCE)", database))
}
