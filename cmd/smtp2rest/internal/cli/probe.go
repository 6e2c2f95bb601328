package cli

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"

	"github.com/smtp2rest/smtp2rest/cmd/smtp2rest/internal/probe"
	"github.com/smtp2rest/smtp2rest/cmd/smtp2rest/internal/terminal"
	"github.com/smtp2rest/smtp2rest/relay/config"
	"github.com/smtp2rest/smtp2rest/smtpd"
)

// probeRecipient is outside, whichever relay is asked.
const probeRecipient = "relay-probe@example.com"

// stranger is the client that a PROXY header names. The address is reserved for
// documentation (RFC 5737), so it is in nobody's networks.
func stranger() netip.Addr { return netip.MustParseAddr("192.0.2.1") }

// prober asks each listener of a configuration whether it relays for strangers.
type prober struct {
	cfg     *config.Config
	sources []netip.Addr // of this machine, without loopback
	ask     func(context.Context, probe.Question) (probe.Answer, error)
	tell    func(answered) // is called at once: a silent listener takes its time

	asked []answered
}

// answered is the answer to one question to a listener.
type answered struct {
	Listener string `json:"listener"`
	Result   result `json:"result"`
	Text     string `json:"text"`
}

// result is what an answer means.
type result string

const (
	notAsked result = "not_asked" // its address is not known
	closed   result = "closed"    // a stranger is refused
	known    result = "known"     // the client may send, and is not a stranger
	open     result = "open"      // a stranger may send
	unsure   result = "unsure"    // nobody answered
)

func (a answered) print(t *terminal.Terminal) {
	text := a.Text
	if a.Result == open {
		text = t.Palette().Red(text)
	}
	fmt.Fprintf(t.Out, "%s: %s\n", a.Listener, text)
}

// probeListeners asks every listener.
func probeListeners(ctx context.Context, cfg *config.Config, tell func(answered)) ([]answered, error) {
	sources, err := ownAddresses()
	if err != nil {
		return nil, err
	}
	p := &prober{cfg: cfg, sources: sources, ask: probe.Ask, tell: tell}
	for _, l := range cfg.Listeners {
		p.listener(ctx, l)
	}
	return p.asked, nil
}

// judge fails when a stranger was let in, or when a listener could not be asked.
func judge(asked []answered) error {
	switch is := func(r result) func(answered) bool { return func(a answered) bool { return a.Result == r } }; {
	case slices.ContainsFunc(asked, is(open)):
		return errors.New("strangers can send through this relay: narrow listener.networks and proxy_from, or set require_auth = true")
	case slices.ContainsFunc(asked, is(unsure)):
		return errors.New("not every listener could be asked, so nothing is known of it; is 'smtp2rest serve' running with this configuration?")
	}
	return nil
}

// ownAddresses returns the addresses by which others can reach this machine.
func ownAddresses() ([]netip.Addr, error) {
	list, err := net.InterfaceAddrs()
	if err != nil {
		return nil, fmt.Errorf("the addresses of this machine cannot be read: %w", err)
	}
	var own []netip.Addr
	for _, a := range list {
		prefix, err := netip.ParsePrefix(a.String())
		if addr := prefix.Addr().Unmap(); err == nil && !addr.IsLoopback() && !addr.IsLinkLocalUnicast() {
			own = append(own, addr)
		}
	}
	return own, nil
}

func (p *prober) say(l smtpd.Listener, r result, format string, args ...any) {
	a := answered{l.Address, r, fmt.Sprintf(format, args...)}
	p.asked = append(p.asked, a)
	p.tell(a)
}

func (p *prober) listener(ctx context.Context, l smtpd.Listener) {
	host, port, err := net.SplitHostPort(l.Address)
	bound, addrErr := netip.ParseAddr(host)
	switch {
	case strings.HasPrefix(l.Address, "unix:"):
		p.local(ctx, l, fmt.Sprintf("only users who may open the file can reach it (its mode is %04o)", l.SocketMode))
		return
	case err != nil || strings.HasPrefix(l.Address, "systemd:"):
		p.say(l, notAsked, "not asked: only systemd knows its address")
		return
	case port == "0":
		p.say(l, notAsked, "not asked: its port is another at each start")
		return
	case (addrErr == nil && bound.IsLoopback() || host == "localhost") && len(l.ProxyFrom) == 0:
		p.local(ctx, l, "only this machine can reach it")
		return
	}
	asked := false
	for _, source := range p.sources {
		if addrErr == nil && !bound.IsUnspecified() && bound.Unmap().Is4() != source.Is4() {
			continue
		}
		at := l.Address
		if host == "" || addrErr == nil && bound.IsUnspecified() {
			at = net.JoinHostPort(source.String(), port)
		}
		asked = true
		p.from(ctx, l, at, source)
	}
	if !asked {
		p.say(l, unsure, "not asked: this machine has no address of its kind but loopback")
	}
}

// local asks a listener that no stranger can reach, only to see that it answers.
func (p *prober) local(ctx context.Context, l smtpd.Listener, who string) {
	q := probe.Question{Address: l.Address, TLS: l.TLS.Mode == smtpd.ImplicitTLS, LMTP: l.Protocol == smtpd.LMTP, Sender: p.cfg.Sender.Email, To: probeRecipient}
	switch answer, err := p.ask(ctx, q); {
	case err != nil:
		p.say(l, unsure, "no answer: %v; %s", err, who)
	case answer.Taken:
		p.say(l, known, "%s, and may send", who)
	default:
		p.say(l, closed, "%s, and is told %s", who, answer.Said)
	}
}

// from asks from one address of this machine. When the listener takes that for a
// proxy, it asks for a stranger behind the proxy.
func (p *prober) from(ctx context.Context, l smtpd.Listener, at string, source netip.Addr) {
	q := probe.Question{Address: at, Source: source, TLS: l.TLS.Mode == smtpd.ImplicitTLS, LMTP: l.Protocol == smtpd.LMTP, To: probeRecipient}
	who := source
	if within(l.ProxyFrom, source) {
		who = stranger()
		q.Claim = who
	}
	label := who.String()
	if q.Claim.IsValid() {
		label += " behind the proxy " + source.String()
	}
	for _, sender := range []string{p.cfg.Sender.Email, ""} {
		q.Sender = sender
		answer, err := p.ask(ctx, q)
		switch {
		case err != nil:
			p.say(l, unsure, "%s gets no answer: %v", label, err)
			return
		case answer.Taken && within(l.Networks, who) && !l.RequireAuth:
			p.say(l, known, "%s may send: it is in networks, and so no stranger", label)
			return
		case answer.Taken:
			p.say(l, open, "%s is a stranger and MAY SEND: %s", label, answer.Said)
			return
		case sender == "":
			p.say(l, closed, "%s is told %s", label, answer.Said)
		}
	}
}

func within(networks []netip.Prefix, addr netip.Addr) bool {
	return slices.ContainsFunc(networks, func(n netip.Prefix) bool { return n.Contains(addr) })
}
