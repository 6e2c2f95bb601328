package smtpd

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/smtp2rest/smtp2rest/smtpd/auth"
	"github.com/smtp2rest/smtp2rest/smtpd/budget"
)

// dialUnix is dial by a unix socket.
func dialUnix(t *testing.T, path string) *client {
	t.Helper()
	conn, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return newClient(t, conn)
}

// Whoever may open the socket may send, unless everybody has to log in.
func TestUnixSocket(t *testing.T) {
	path := filepath.Join(t.TempDir(), "smtp")
	stale, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	stale.(*net.UnixListener).SetUnlinkOnClose(false)
	_ = stale.Close() // as a process that was killed leaves it
	b := &fakeBackend{}
	s := start(t, b, func(o *Options) { o.Listeners = []Listener{{Address: "unix:" + path, SocketMode: 0o600}} })
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info, err)
	}
	c := dialUnix(t, path)
	c.open()
	c.do("DATA", "354 ", ".", "250 ", "QUIT", "221 ")
	if cl := b.took()[0].env.Client; cl.Addr.IsValid() || cl.Listener != path {
		t.Errorf("client %+v", cl)
	}
	second, err := New(Options{Backend: b, Hostname: "mx.test", Listeners: []Listener{{Address: "unix:" + path, SocketMode: 0o660}}, Memory: budget.New(1<<20, nil)})
	if err != nil {
		t.Fatal(err)
	}
	if err := second.Start(t.Context()); err == nil || !strings.Contains(err.Error(), "another program uses this socket") {
		t.Errorf("Start: %v", err)
	}
	stopWithin(t, s, patience)
	if _, err := os.Lstat(path); !os.IsNotExist(err) {
		t.Errorf("the socket is left: %v", err)
	}
}

func TestUnixSocketRequiresAuth(t *testing.T) {
	path := filepath.Join(t.TempDir(), "smtp")
	login := withUsers(t, auth.Options{})
	start(t, &fakeBackend{}, func(o *Options) {
		o.Listeners = []Listener{{Address: "unix:" + path, SocketMode: 0o660, RequireAuth: true}}
		login(o)
	})
	c := dialUnix(t, path)
	c.want("220 ")
	c.do("HELO c", "250 ", "MAIL FROM:<a@b.test>", "530 ", plain("ann", "hunter2"), "235 ", "MAIL FROM:<a@b.test>", "250 ", "QUIT", "221 ")
}

// What is no socket is never removed.
func TestUnixSocketInThePlaceOfAFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "mail")
	if err := os.WriteFile(path, []byte("precious"), 0o600); err != nil {
		t.Fatal(err)
	}
	if l, err := listenUnix(t.Context(), path, 0); err == nil {
		_ = l.Close()
		t.Error("listens")
	}
	if data, err := os.ReadFile(path); string(data) != "precious" {
		t.Errorf("%q, %v", data, err)
	}
}

// Each listener takes over the sockets that have its name; the rest are closed.
func TestInherit(t *testing.T) {
	s := &Server{inherited: map[string][]net.Listener{}}
	for _, name := range []string{"a", "b", "b"} {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = l.Close() }()
		s.inherited[name] = append(s.inherited[name], l)
	}
	s.socketNames = []string{"a", "b"}
	if _, err := s.inherit("smtp"); err == nil || !strings.Contains(err.Error(), "called a, b; set FileDescriptorName=smtp") {
		t.Errorf("a name that is not there: %v", err)
	}
	if list, err := s.inherit("b"); err != nil || len(list) != 2 {
		t.Errorf("%d sockets, %v", len(list), err)
	}
	if _, err := s.inherit("b"); err == nil || !strings.Contains(err.Error(), "no socket of that name is left") {
		t.Errorf("a name that is taken: %v", err)
	}
	left := s.inherited["a"][0]
	if names := s.closeInherited(); len(names) != 1 || names[0] != "a" {
		t.Errorf("left are %v", names)
	}
	if _, err := left.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("a socket that nobody uses is open: %v", err)
	}
	s.socketNames = nil
	if _, err := s.inherit("a"); err == nil || !strings.Contains(err.Error(), "gave this process no sockets") {
		t.Errorf("no sockets: %v", err)
	}
	s.started = true
	if _, err := s.inherit("a"); err == nil || !strings.Contains(err.Error(), "restart smtp2rest") {
		t.Errorf("at a reload: %v", err)
	}
}

// An environment that announces a great many sockets is refused, not filled in.
func TestTooManyInheritedSockets(t *testing.T) {
	t.Setenv("LISTEN_PID", strconv.Itoa(os.Getpid()))
	t.Setenv("LISTEN_FDS", "1000000000")
	list, err := takeInherited()
	if err == nil || !strings.Contains(err.Error(), "LISTEN_FDS announces 1000000000 sockets") {
		t.Errorf("%d sockets, error %v", len(list), err)
	}
}
