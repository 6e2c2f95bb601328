package sendmail

import (
	"fmt"
	"net"
	"strings"
)

// DefaultServer is where the daemon listens by default.
const DefaultServer = "127.0.0.1:2525"

// Settings are the whole of sendmail.conf. The daemon's own file is not read:
// it names secrets' places, and everybody who may send mail may run sendmail.
type Settings struct {
	Server string // host:port, or the path of a unix socket
	Domain string // of senders that have none; "" is the machine's name
}

// ParseSettings reads lines of "name = value"; # begins a comment. An error
// names the line and does not show it.
func ParseSettings(text string) (Settings, error) {
	s := Settings{Server: DefaultServer}
	n := 0
	for line := range strings.Lines(text) {
		n++
		line, _, _ = strings.Cut(line, "#")
		if line = strings.TrimSpace(line); line == "" {
			continue
		}
		name, value, found := strings.Cut(line, "=")
		value = strings.Trim(strings.TrimSpace(value), `"`)
		switch name = strings.TrimSpace(name); {
		case !found || value == "":
			return s, fmt.Errorf("line %d: write name = value", n)
		case name == "server":
			s.Server = value
		case name == "domain":
			s.Domain = value
		default:
			return s, fmt.Errorf("line %d: there are two settings, server and domain", n)
		}
	}
	if s.Domain != "" && !isDomain(s.Domain) {
		return s, fmt.Errorf("domain: %s is not a domain name", clean(s.Domain))
	}
	return s, nil
}

// Dial is the network and address of a server, for net.Dial.
func Dial(server string) (network, address string, err error) {
	if path, ok := strings.CutPrefix(server, "unix:"); ok || strings.HasPrefix(server, "/") {
		return "unix", path, nil
	}
	if _, port, err := net.SplitHostPort(server); err != nil || port == "" {
		return "", "", Errorf(Config, "server %s is neither host:port nor the path of a socket", clean(server))
	}
	return "tcp", server, nil
}

// Domain makes a domain of what the machine calls itself.
func Domain(hostname string) string {
	if isDomain(hostname) {
		return hostname
	}
	return "localhost"
}
