package smtpd

import (
	"net"
	"os"
	"path/filepath"
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

func TestInheritedErrors(t *testing.T) {
	for _, tt := range []struct{ pid, fds, names, want string }{
		{"", "", "", "gave this process no sockets"},
		{"4712", "1", "smtp", "gave this process no sockets"},
		{"4711", "x", "smtp", "LISTEN_FDS is not a number"},
		{"4711", "2", "a:b", "called a, b; set FileDescriptorName=s"},
		{"4711", "1", "smtp", "cannot listen on systemd:smtp: "},
	} {
		env := map[string]string{"LISTEN_PID": tt.pid, "LISTEN_FDS": tt.fds, "LISTEN_FDNAMES": tt.names}
		list, err := inherited("smtp", func(name string) string { return env[name] }, 4711, 1<<20)
		if err == nil || !strings.Contains(err.Error(), tt.want) || len(list) > 0 {
			t.Errorf("%+v: %v", tt, err)
		}
	}
}

func TestSocketsThatNobodyWants(t *testing.T) {
	env := map[string]string{"LISTEN_PID": "4711", "LISTEN_FDNAMES": "smtp:smtp:other:"}
	lookup := func(name string) string { return env[name] }
	for _, tt := range []struct {
		listeners []Listener
		pid       int
		want      string
	}{
		{[]Listener{{Address: "systemd:smtp"}}, 4711, "other"},
		{[]Listener{{Address: ":25"}}, 4711, "smtp other"},
		{[]Listener{{Address: "systemd:other"}, {Address: "systemd:smtp"}}, 4711, ""},
		{nil, 1, ""},
	} {
		if got := strings.Join(unwanted(tt.listeners, lookup, tt.pid), " "); got != tt.want {
			t.Errorf("%+v: %q, want %q", tt.listeners, got, tt.want)
		}
	}
}
