package main

import (
	"bufio"
	"fmt"
	"net"
	"net/netip"
	"path/filepath"
	"strings"
	"testing"

	"github.com/smtp2rest/smtp2rest/cmd/smtp2rest/internal/terminal"
	"github.com/smtp2rest/smtp2rest/test/harness"
)

// The real thing: a relay that others reach, asked from this machine's own
// addresses, and what would be one that takes everything.
func TestCheckProbe(t *testing.T) {
	own, err := addressesOfThisMachine()
	if err != nil || len(own) == 0 {
		t.Skipf("this machine has no address but loopback, so there is nowhere to be a stranger: %v", err)
	}
	env := harness.Environ(t, "NEXUSPROMAIL_API_KEY=k", "FROM_EMAIL=relay@sandbox.example")
	check := func(more string) harness.Result {
		t.Helper()
		return harness.Execute(t, env, "", "check", "--probe", "--config", harness.ConfigFile(t, more))
	}
	port := harness.FreePort(t)
	listener := "[[listener]]\naddress = \":" + port + "\"\n"
	if r := check(listener); r.Code != terminal.ExitFailed || !strings.Contains(r.All(), "gets no answer: ") {
		t.Errorf("nobody listens: %+v", r)
	}
	s := harness.ServeSandboxAt(t, ":"+port, fmt.Sprintf("networks = [\"127.0.0.0/8\"]\nproxy_from = [%q]\n", own[0]))
	if r := check(listener + fmt.Sprintf("networks = [\"127.0.0.0/8\"]\nproxy_from = [%q]\n", own[0])); r.Code != terminal.ExitOK || !strings.Contains(r.Out, ":"+port+": 192.0.2.1 behind the proxy "+own[0].String()+" is told 554 5.7.1 relaying denied") {
		t.Errorf("%+v", r)
	}
	if n := len(harness.CallsTo(t, s.Sandbox, "relay-probe@example.com")); n != 0 {
		t.Errorf("the probe sent %d mails", n)
	}
	local := "[[listener]]\naddress = \"127.0.0.1:" + harness.FreePort(t) + "\"\n"
	if r := check(local); r.Code != terminal.ExitFailed || !strings.Contains(r.Out, "no answer: dial tcp") {
		t.Errorf("nobody listens on loopback: %+v", r)
	}
	socket := "[[listener]]\naddress = \"unix:" + filepath.Join(t.TempDir(), "s") + "\"\nsocket_mode = \"0600\"\n"
	p := harness.Launch(t, harness.Environ(t), "serve", "--sandbox", "--config", harness.ConfigFile(t, socket))
	p.Await(p.Out, `sandbox +(http)`)
	if r := check(socket); r.Code != terminal.ExitOK || !strings.Contains(r.Out, "(its mode is 0600), and may send") {
		t.Errorf("a unix socket: %+v", r)
	}
	port = openRelay(t)
	if r := check("[[listener]]\naddress = \":" + port + "\"\n"); r.Code != terminal.ExitFailed || !strings.Contains(r.Out, "MAY SEND: 250 fine") || !strings.Contains(r.Err, "require_auth = true") {
		t.Errorf("an open relay: %+v", r)
	}
}

// openRelay takes everything from everybody, and returns its port.
func openRelay(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", ":0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	t.Cleanup(func() { _ = l.Close(); <-done })
	go func() {
		defer close(done)
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			_, _ = fmt.Fprint(conn, "220 come in\r\n")
			for lines := bufio.NewScanner(conn); lines.Scan() && lines.Text() != "QUIT"; {
				_, _ = fmt.Fprint(conn, "250 fine\r\n")
			}
			_ = conn.Close()
		}
	}()
	_, port := harness.HostPort(t, l.Addr().String())
	return port
}

// addressesOfThisMachine are those by which others can reach it.
func addressesOfThisMachine() (own []netip.Addr, err error) {
	list, err := net.InterfaceAddrs()
	for _, a := range list {
		prefix, err := netip.ParsePrefix(a.String())
		if addr := prefix.Addr().Unmap(); err == nil && !addr.IsLoopback() && !addr.IsLinkLocalUnicast() {
			own = append(own, addr)
		}
	}
	return own, err
}
