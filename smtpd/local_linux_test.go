package smtpd

import (
	"errors"
	"net/netip"
	"path/filepath"
	"strings"
	"testing"
)

// A connection from this process is a client like any other, by the first listener that
// takes it. What it says of a message nobody else can say.
func TestDial(t *testing.T) {
	everybody := []netip.Prefix{netip.MustParsePrefix("0.0.0.0/0"), netip.MustParsePrefix("::/0")}
	socket := filepath.Join(t.TempDir(), "smtp")
	closed := []Listener{
		{Address: "127.0.0.1:0", Networks: loopback(), Protocol: LMTP},
		{Address: "127.0.0.1:0", Networks: loopback(), RequireAuth: true},
		{Address: "127.0.0.1:0", Networks: loopback(), TLS: TLS{Mode: ImplicitTLS, SelfSigned: true}},
		{Address: "127.0.0.1:0", Networks: loopback(), ProxyFrom: loopback()},
		{Address: "127.0.0.1:0", Networks: []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}},
	}
	for _, open := range []Listener{
		{Address: "127.0.0.1:0", Networks: loopback()},
		{Address: ":0", Networks: everybody},
		{Address: "[::1]:0", Networks: everybody},
		{Address: "unix:" + socket, SocketMode: 0o600},
	} {
		t.Run(open.Address, func(t *testing.T) {
			b := &fakeBackend{}
			s := start(t, b, func(o *Options) { o.Listeners = append(closed[:len(closed):len(closed)], open) })
			local, err := s.Dial(t.Context())
			if err != nil {
				if strings.HasPrefix(open.Address, "[::1]") {
					t.Skip(err)
				}
				t.Fatal(err)
			}
			c := newClient(t, local)
			c.open()
			local.Say("id1", 4711)
			c.do("DATA", "354 ", ".", "250 ")
			local.Say("id2", 4712)
			c.do("MAIL FROM:<a@d.test>", "250 ", "RCPT TO:<b@d.test>", "250 ", "DATA", "354 ", ".", "250 ")
			took := b.took()
			if len(took) != 2 || took[0].env.Client.Kept != (Kept{"id1", 4711}) || took[1].env.Client.Kept != (Kept{"id2", 4712}) {
				t.Errorf("%+v", took)
			}
			if err := local.Close(); err != nil || len(s.locals.say) != 0 {
				t.Errorf("%v; it still says %v", err, s.locals.say)
			}
			other, err := s.Dial(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = other.Close() }()
			c = newClient(t, other)
			c.open()
			c.do("DATA", "354 ", ".", "250 ", "QUIT", "221 ")
			if last := b.took()[2].env.Client; last.Kept != (Kept{}) {
				t.Errorf("another says %+v", last.Kept)
			}
		})
	}
	s := start(t, &fakeBackend{}, func(o *Options) { o.Listeners = closed })
	if _, err := s.Dial(t.Context()); !errors.Is(err, ErrNoLocal) {
		t.Errorf("with none: %v", err)
	}
}
