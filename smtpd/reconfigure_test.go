package smtpd

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/smtp2rest/smtp2rest/smtpd/auth"
	"github.com/smtp2rest/smtp2rest/smtpd/policy"
)

// changed is a server's options with a change.
func changed(s *Server, change func(*Options)) Options {
	o := s.options
	change(&o)
	return o
}

func reconfigure(t *testing.T, s *Server, o Options) {
	t.Helper()
	c, err := s.Prepare(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	c.Apply()
}

func denying(t *testing.T, who string) policy.Rules {
	t.Helper()
	list, err := policy.Parse([]string{who})
	if err != nil {
		t.Fatal(err)
	}
	return policy.Rules{DenySenders: list}
}

// An open connection goes on as it began, but with who may send as it is now.
func TestReconfigureKeepsConnections(t *testing.T) {
	s := start(t, &fakeBackend{}, nil)
	before := s.Addrs()[0].String()
	open := dial(t, s)
	open.open()
	reconfigure(t, s, changed(s, func(o *Options) {
		o.Hostname = "new.test"
		o.Limits.MessageBytes = 1000
		o.Rules = denying(t, "a@b.test")
	}))
	if now := s.Addrs()[0].String(); now != before {
		t.Errorf("the address changed from %s to %s", before, now)
	}
	open.do("DATA", "354 ", "Subject: s\r\n\r\nb\r\n.", "250 ") // the transaction was open
	open.do("MAIL FROM:<a@b.test>", "553 5.7.1", "MAIL FROM:<e@b.test>", "250 ", "RCPT TO:<c@d.test>", "250 ",
		"DATA", "354 ", "Subject: s\r\n\r\n"+strings.Repeat("b", 990)+"\r\n.", "250 ") // its limit is that of its beginning
	fresh := dial(t, s)
	fresh.want("220 new.test")
	fresh.do("EHLO client", "250 ", "MAIL FROM:<e@b.test> SIZE=1001", "552 ", "MAIL FROM:<a@b.test>", "553 5.7.1")
}

// A network that may not send any more, and a user who is gone, are heeded at
// the next mail of a connection that is open.
func TestReconfigureTakesLeaveAway(t *testing.T) {
	s := start(t, &fakeBackend{}, withUsers(t, auth.Options{}))
	inside, user := dial(t, s), dial(t, s)
	inside.open()
	user.want("220 ")
	user.do("EHLO client", "250 ", plain("ann", "hunter2"), "235 ", "MAIL FROM:<a@b.test>", "250 ", "RSET", "250 ")
	reconfigure(t, s, changed(s, func(o *Options) {
		o.Listeners = []Listener{{Address: o.Listeners[0].Address, Networks: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}}}
		o.Users = nil
	}))
	inside.do("RSET", "250 ", "MAIL FROM:<a@b.test>", "554 5.7.1")
	user.do("MAIL FROM:<a@b.test>", "554 5.7.1", plain("ann", "hunter2"), "502 ")
}

// New listeners are bound; of those that go, idle clients are told and a
// message that is under way is dealt with.
func TestReconfigureOpensAndDrains(t *testing.T) {
	backend := &fakeBackend{}
	socket := filepath.Join(t.TempDir(), "s")
	s := start(t, backend, func(o *Options) {
		o.Listeners = append(o.Listeners, Listener{Address: "unix:" + socket, SocketMode: 0o600})
	})
	idle, busy := dial(t, s), dial(t, s)
	idle.want("220 ")
	busy.open()
	busy.do("DATA", "354 ")
	gone := s.Addrs()[0].String()
	reconfigure(t, s, changed(s, func(o *Options) {
		o.Listeners = []Listener{{Address: "[::1]:0", Networks: []netip.Prefix{netip.MustParsePrefix("::1/128")}}, {Address: "unix:" + socket, SocketMode: 0o666}}
	}))
	idle.want("421 4.3.2")
	busy.do("Subject: s\r\n\r\nb\r\n.", "250 ")
	busy.want("421 4.3.2")
	if conn, err := net.DialTimeout("tcp", gone, time.Second); err == nil {
		t.Errorf("%s is still listened on", gone)
		_ = conn.Close()
	}
	if got := s.Addrs(); len(got) != 2 || !strings.HasPrefix(got[0].String(), "[::1]:") || got[1].String() != socket {
		t.Fatalf("the addresses are %v", got)
	}
	dial(t, s).open()
	conn, err := net.Dial("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	c := newClient(t, conn)
	c.open()
	if info, err := os.Stat(socket); err != nil || info.Mode().Perm() != 0o666 {
		t.Errorf("the socket: %v %v", info, err)
	}
	_ = conn.Close()
}

// What cannot be had changes nothing and leaves nothing open.
func TestReconfigureRefuses(t *testing.T) {
	s := start(t, &fakeBackend{}, nil)
	open := dial(t, s)
	open.open()
	own := s.Addrs()[0].String()
	_, number, _ := net.SplitHostPort(own)
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = taken.Close() }()
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	second := free.Addr().String()
	_ = free.Close()
	for name, tt := range map[string]struct {
		listener Listener
		want     string
	}{
		"a port that another has":  {Listener{Address: taken.Addr().String()}, "this daemon itself uses this port"},
		"a port of our own":        {Listener{Address: "0.0.0.0:" + number}, "while this daemon listens on " + own + "; restart"},
		"systemd's":                {Listener{Address: "systemd:late"}, "systemd hands sockets over at the start only"},
		"a certificate not there":  {Listener{Address: "127.0.0.1:0", TLS: TLS{Mode: StartTLS, CertFile: "/nowhere", KeyFile: "/nowhere"}}, "/nowhere"},
		"a host name that is none": {Listener{}, "cannot be used in the greeting"},
	} {
		o := changed(s, func(o *Options) {
			o.Listeners = []Listener{o.Listeners[0], {Address: second}, tt.listener}
			o.Rules = denying(t, "*")
			if tt.listener.Address == "" {
				o.Hostname = ""
			}
		})
		if _, err := s.Prepare(t.Context(), o); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, want %q", name, err, tt.want)
		}
		again, err := net.Listen("tcp", second)
		if err != nil {
			t.Fatalf("%s: %s was not given back: %v", name, second, err)
		}
		_ = again.Close()
	}
	open.do("RSET", "250 ", "MAIL FROM:<a@b.test>", "250 ")
	if got := s.Addrs(); len(got) != 1 || got[0].String() != own {
		t.Errorf("the addresses are %v", got)
	}
}

// A certificate of our own making stays while nothing about it changes.
func TestReconfigureKeepsASelfSignedCertificate(t *testing.T) {
	s := start(t, &fakeBackend{}, func(o *Options) { o.Listeners[0].TLS = TLS{Mode: StartTLS, SelfSigned: true} })
	first := s.ports[0].current().tls
	reconfigure(t, s, changed(s, func(o *Options) { o.Limits.Recipients = 7 }))
	if s.ports[0].current().tls != first {
		t.Error("it was made anew")
	}
	reconfigure(t, s, changed(s, func(o *Options) { o.Hostname = "other.test" }))
	if s.ports[0].current().tls == first {
		t.Error("it is for another name")
	}
}

// Clients come, send and go while the configuration changes all the time: each
// gets its mail through.
func TestReconfigureUnderLoad(t *testing.T) {
	const clients, mails = 8, 25
	backend := &fakeBackend{}
	s := start(t, backend, nil)
	var sending, changing sync.WaitGroup
	done := make(chan struct{})
	changing.Go(func() {
		for n := 1; ; n++ {
			select {
			case <-done:
				return
			default:
			}
			c, err := s.Prepare(t.Context(), changed(s, func(o *Options) {
				o.Limits.Recipients = 10 + n%7
				if n%2 == 0 {
					o.Listeners = append(o.Listeners[:1:1], Listener{Address: "127.0.0.1:0"})
				}
			}))
			if err != nil {
				t.Error(err)
				return
			}
			if n%3 == 0 {
				c.Undo()
				continue
			}
			c.Apply()
		}
	})
	for i := range clients {
		sending.Go(func() {
			for j := range mails {
				c := dial(t, s)
				if got := c.reply(); !strings.HasPrefix(got, "220 ") {
					t.Errorf("greeted with %q", got)
					return
				}
				for _, step := range [][2]string{{"EHLO client", "250 "}, {"MAIL FROM:<a@b.test>", "250 "}, {"RCPT TO:<c@d.test>", "250 "},
					{"DATA", "354 "}, {fmt.Sprintf("Subject: %d-%d\r\n\r\nb\r\n.", i, j), "250 "}, {"QUIT", "221 "}} {
					c.send(step[0] + "\r\n")
					if got := c.reply(); !strings.HasPrefix(got, step[1]) {
						t.Errorf("after %q: %q", step[0], got)
						return
					}
				}
			}
		})
	}
	sending.Wait()
	close(done)
	changing.Wait()
	if got := len(backend.took()); got != clients*mails {
		t.Errorf("%d mails were taken, want %d", got, clients*mails)
	}
}
