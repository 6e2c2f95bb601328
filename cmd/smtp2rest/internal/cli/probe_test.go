package cli

import (
	"context"
	"errors"
	"io/fs"
	"net/netip"
	"strings"
	"testing"

	"github.com/smtp2rest/smtp2rest/cmd/smtp2rest/internal/probe"
	"github.com/smtp2rest/smtp2rest/cmd/smtp2rest/internal/terminal"
	"github.com/smtp2rest/smtp2rest/relay/config"
	"github.com/smtp2rest/smtp2rest/smtpd"
)

func TestProber(t *testing.T) {
	prefixes := func(list ...string) (networks []netip.Prefix) {
		for _, s := range list {
			networks = append(networks, netip.MustParsePrefix(s))
		}
		return networks
	}
	denied := func(probe.Question) (probe.Answer, error) { return probe.Answer{Said: "554 5.7.1 no"}, nil }
	taken := func(probe.Question) (probe.Answer, error) {
		return probe.Answer{Taken: true, Said: "250 2.1.5 ok"}, nil
	}
	nullOnly := func(q probe.Question) (probe.Answer, error) {
		return probe.Answer{Taken: q.Sender == "", Said: "250 2.1.5 ok"}, nil
	}
	silent := func(probe.Question) (probe.Answer, error) { return probe.Answer{}, errors.New("refused") }
	for _, tt := range []struct {
		name         string
		l            smtpd.Listener
		ask          func(probe.Question) (probe.Answer, error)
		want         string
		asks         string // address, source and claim of each question
		open, unsure int
	}{
		{name: "loopback", l: smtpd.Listener{Address: "127.0.0.1:25"}, ask: taken, want: "127.0.0.1:25: only this machine can reach it, and may send", asks: "127.0.0.1:25 invalid IP"},
		{name: "localhost", l: smtpd.Listener{Address: "localhost:25"}, ask: denied, want: "only this machine can reach it, and is told 554 5.7.1 no", asks: "localhost:25 invalid IP"},
		{name: "a loopback that is silent", l: smtpd.Listener{Address: "127.0.0.1:25"}, ask: silent, want: "no answer: refused; only this machine can reach it", asks: "127.0.0.1:25 invalid IP", unsure: 1},
		{name: "a unix socket", l: smtpd.Listener{Address: "unix:/run/x", SocketMode: fs.FileMode(0o660)}, ask: taken, want: "(its mode is 0660), and may send", asks: "unix:/run/x invalid IP"},
		{name: "systemd", l: smtpd.Listener{Address: "systemd:x"}, want: "only systemd knows"},
		{name: "any port", l: smtpd.Listener{Address: ":0"}, want: "another at each start"},
		{name: "everywhere", l: smtpd.Listener{Address: ":25"}, ask: denied, want: "10.1.0.5 is told 554 5.7.1 no\n:25: 2001:db8:1::5 is told 554 5.7.1 no",
			asks: "10.1.0.5:25 10.1.0.5 | [2001:db8:1::5]:25 2001:db8:1::5"},
		{name: "one address", l: smtpd.Listener{Address: "10.1.0.9:25"}, ask: denied, want: "10.1.0.5 is told 554 5.7.1 no", asks: "10.1.0.9:25 10.1.0.5"},
		{name: "a friend", l: smtpd.Listener{Address: "10.1.0.9:25", Networks: prefixes("10.0.0.0/8")}, ask: taken, want: "10.1.0.5 may send: it is in networks", asks: "10.1.0.9:25 10.1.0.5"},
		{name: "a friend who should have logged in", l: smtpd.Listener{Address: "10.1.0.9:25", Networks: prefixes("10.0.0.0/8"), RequireAuth: true}, ask: taken,
			want: "10.1.0.5 is a stranger and MAY SEND: 250 2.1.5 ok", asks: "10.1.0.9:25 10.1.0.5", open: 1},
		{name: "a stranger", l: smtpd.Listener{Address: "10.1.0.9:25"}, ask: taken, want: "10.1.0.5 is a stranger and MAY SEND: 250 2.1.5 ok", asks: "10.1.0.9:25 10.1.0.5", open: 1},
		{name: "with the null sender", l: smtpd.Listener{Address: "10.1.0.9:25"}, ask: nullOnly, want: "MAY SEND", asks: "10.1.0.9:25 10.1.0.5", open: 1},
		{name: "behind a proxy", l: smtpd.Listener{Address: "10.1.0.9:25", ProxyFrom: prefixes("10.1.0.5/32")}, ask: denied,
			want: "192.0.2.1 behind the proxy 10.1.0.5 is told 554", asks: "10.1.0.9:25 10.1.0.5 192.0.2.1"},
		{name: "loopback behind a proxy", l: smtpd.Listener{Address: "127.0.0.1:25", ProxyFrom: prefixes("10.1.0.5/32")}, ask: denied, want: "192.0.2.1 behind the proxy", asks: "127.0.0.1:25 10.1.0.5 192.0.2.1"},
		{name: "silence", l: smtpd.Listener{Address: "10.1.0.9:25"}, ask: silent,
			want: "10.1.0.5 gets no answer: refused", asks: "10.1.0.9:25 10.1.0.5", unsure: 1},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var out strings.Builder
			var asked []string
			p := &prober{
				tell: func(a answered) { a.print(&terminal.Terminal{Out: &out}) }, cfg: &config.Config{Sender: config.Sender{Email: "a@b.test"}},
				sources: []netip.Addr{netip.MustParseAddr("10.1.0.5"), netip.MustParseAddr("2001:db8:1::5")},
				ask: func(_ context.Context, q probe.Question) (probe.Answer, error) {
					who := q.Address + " " + q.Source.String()
					if q.Claim.IsValid() {
						who += " " + q.Claim.String()
					}
					if len(asked) == 0 || asked[len(asked)-1] != who {
						asked = append(asked, who)
					}
					return tt.ask(q)
				},
			}
			p.listener(t.Context(), tt.l)
			if !strings.Contains(out.String(), tt.want) || strings.Join(asked, " | ") != tt.asks || p.count(open) != tt.open || p.count(unsure) != tt.unsure {
				t.Errorf("%s\nasked %q, %d open, %d unsure", &out, asked, p.count(open), p.count(unsure))
			}
		})
	}
}

func (p *prober) count(r result) (n int) {
	for _, a := range p.asked {
		if a.Result == r {
			n++
		}
	}
	return n
}
