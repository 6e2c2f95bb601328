package config

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io/fs"
	"net"
	"slices"
	"strconv"
	"strings"
	"time"
)

// listenerSettings is the table for one listener; prefix is "listener", or
// "listener#2" when there are several.
func listenerSettings(l *Listener, prefix string) []setting {
	return append([]setting{
		{path: prefix + ".address", value: textValue{&l.Address, checkListen}, def: "127.0.0.1:2525",
			doc: "Address and port, where \":2525\" is every address of this machine; \"unix:/run/…\"; or\n\"systemd:NAME\" for what a .socket unit with FileDescriptorName=NAME opened."},
		{path: prefix + ".protocol", value: wordValue[Protocol]{&l.Protocol, []Protocol{SMTP, LMTP}}, def: "smtp",
			doc: "\"smtp\", or \"lmtp\" for a mail server that hands over: each recipient has a reply."},
		{path: prefix + ".socket_mode", value: modeValue{&l.SocketMode}, def: "0660",
			doc: "The mode of a unix socket: who may open it may send."},
		{path: prefix + ".networks", value: networksValue{&l.Networks}, def: []any{"127.0.0.0/8", "::1/128"},
			doc: "Whose clients may send through it. On an address that others can reach, public\nnetworks wider than /16 (IPv6: /32) are refused: that would be an open relay."},
		{path: prefix + ".proxy_from", value: networksValue{&l.ProxyFrom}, def: []any{},
			doc: "Proxies, whose connections begin with a PROXY header, version 1 or 2: they are believed\nwho the client is."},
		{path: prefix + ".tls", value: wordValue[TLSMode]{&l.TLS, []TLSMode{NoTLS, StartTLS, ImplicitTLS}}, def: "none",
			doc: "\"none\"; \"starttls\" encrypts when the client asks for it; \"implicit\" encrypts from the\nfirst octet on, as is usual on port 465."},
		{path: prefix + ".cert_file", value: textValue{&l.CertFile, nil}, def: "",
			doc: "With tls: the certificate and those between it and its root, in PEM. It is read again\nwhen it changes. A relative path starts at the directory of this file."},
		{path: prefix + ".key_file", value: textValue{&l.KeyFile, nil}, def: "",
			doc: "With tls: the certificate's key, in PEM."},
		{path: prefix + ".self_signed", value: flagValue{&l.SelfSigned}, def: false,
			doc: "With tls: makes a certificate at each start, instead of the files. Clients cannot check\nit, so it is for networks in which nobody can pass for this machine."},
		{path: prefix + ".min_tls", value: versionValue{&l.MinTLS}, def: "1.2",
			doc: "With tls: the least version, from \"1.0\" to \"1.3\". Below 1.2 is for old devices only:\nit lets the keys in that they have, which are weak."},
		{path: prefix + ".require_auth", value: flagValue{&l.RequireAuth}, def: false,
			doc: "Everybody has to log in, in networks as well."},
		{path: prefix + ".auth_without_tls", value: flagValue{&l.AuthWithoutTLS}, defWord: "true on an address of this machine alone, else false", example: "true",
			doc: "Clients may log in outside TLS, where their passwords can be read on the way."},
	}, ruleSettings(&l.Rules, prefix)...)
}

// deriveListeners lets passwords travel in the clear where they stay on this
// machine.
func (l *loader) deriveListeners() {
	all := l.cfg.Listeners
	for i := range all {
		one := &all[i]
		one.CertFile, one.KeyFile = l.fromFile(one.CertFile), l.fromFile(one.KeyFile)
		if s := l.find(prefixOf("listener", i, len(all)) + ".auth_without_tls"); s.origin == "default" {
			one.AuthWithoutTLS = one.private()
		}
	}
}

// checkListen takes every kind of address.
func checkListen(s string) error {
	if path, ok := strings.CutPrefix(s, "unix:"); ok {
		// sun_path of unix(7) has 108 octets, with a NUL at the end.
		if !strings.HasPrefix(path, "/") || len(path) > 107 || checkText(path) != nil {
			return fmt.Errorf(`found %s; write a path of at most 107 bytes that begins with /, as in "unix:/run/smtp2rest/smtp"`, show(s))
		}
		return nil
	}
	if name, ok := strings.CutPrefix(s, "systemd:"); ok {
		if name == "" || strings.Contains(name, ":") || checkText(name) != nil {
			return fmt.Errorf(`found %s; write the FileDescriptorName of a .socket unit, as in "systemd:smtp"`, show(s))
		}
		return nil
	}
	return checkAddress(s)
}

type modeValue struct{ p *fs.FileMode }

func (m modeValue) set(v any) error {
	const want = `write a mode in quotes, as in "0660"`
	s, ok := v.(string)
	if !ok {
		return wrongType(v, want)
	}
	n, err := strconv.ParseUint(s, 8, 32)
	if err != nil || n > 0o777 || n&0o200 == 0 || len(s) > 4 {
		return fmt.Errorf("found %s; %s, with which its owner may write", show(s), want)
	}
	*m.p = fs.FileMode(n)
	return nil
}

func (m modeValue) text() string { return quote(fmt.Sprintf("%04o", *m.p)) }

type versionValue struct{ p *uint16 }

func tlsVersions() []string { return []string{"1.0", "1.1", "1.2", "1.3"} }

func (v versionValue) set(value any) error {
	s, err := oneOf(value, tlsVersions())
	if err == nil {
		*v.p = tls.VersionTLS10 + uint16(slices.Index(tlsVersions(), s))
	}
	return err
}

func (v versionValue) text() string { return quote(tlsVersions()[*v.p-tls.VersionTLS10]) }

func (l *loader) validateListener(i int) {
	all := l.cfg.Listeners
	one, prefix := all[i], prefixOf("listener", i, len(all))
	if l.bad[prefix+".address"] || l.bad[prefix+".networks"] {
		return
	}
	l.validateTLS(one, prefix)
	l.validateAuth(one, prefix)
	if one.unix() && len(one.ProxyFrom) > 0 {
		l.problem(prefix+".proxy_from", "a proxy is known by its address, and clients of %s have none", show(one.Address))
	}
	l.validateReach(one, prefix)
	if one.private() || one.RequireAuth {
		return
	}
	var useful bool
	for _, network := range one.Networks {
		useful = useful || !network.Addr().IsLoopback()
		if tooWide(network) {
			l.problem(prefix+".networks", "found %s on %s, which others can reach: that is an open relay, free for anyone's spam; write the networks of your own clients, as in %s",
				quote(network.String()), show(one.Address), `["10.1.0.0/16"]`)
		}
	}
	if tooMany(one.Networks) {
		l.problem(prefix+".networks", "found %d networks on %s, which others can reach: together they hold more public addresses than one operator's clients have, and so are an open relay; write the networks of your own clients, as in %s",
			len(one.Networks), show(one.Address), `["10.1.0.0/16"]`)
	}
	if !useful && !(len(l.cfg.Users) > 0 && one.canLogIn()) {
		l.warn("%s: nobody else can send through %s: %s.networks has only this machine", prefix, one.Address, prefix)
	}
}

// validateReach is about ways around networks.
func (l *loader) validateReach(one Listener, prefix string) {
	for _, proxies := range one.ProxyFrom {
		if tooWide(proxies) {
			l.problem(prefix+".proxy_from", "found %s: whoever can reach %s from there is believed to be any client they name, and could relay as one of networks; write the addresses of your own proxies, as in %s",
				quote(proxies.String()), show(one.Address), `["10.1.0.7/32"]`)
		}
	}
	if one.unix() && one.SocketMode&0o002 != 0 && !one.RequireAuth {
		l.warn("%s: everybody on this machine can send through %s: its socket_mode is %04o", prefix, one.Address, one.SocketMode)
	}
}

// canLogIn reports whether a password may ever travel.
func (l Listener) canLogIn() bool { return l.TLS != NoTLS || l.AuthWithoutTLS }

func (l *loader) validateAuth(one Listener, prefix string) {
	switch {
	case !one.RequireAuth || l.bad["users_file"]:
	case len(l.cfg.Users) == 0:
		l.problem(prefix+".require_auth", "found true, and there is nobody who could log in; set users_file, or write a [[user]]")
	case !one.canLogIn():
		l.problem(prefix+".require_auth", "found true, and no way in which a password may travel; set tls, or auth_without_tls = true if nobody can listen on the way")
	}
}

func (l Listener) unix() bool { return strings.HasPrefix(l.Address, "unix:") }

// private reports whether only this machine reaches a listener. A proxy brings
// others; of systemd's sockets nothing is known yet.
func (l Listener) private() bool {
	host, _, err := net.SplitHostPort(l.Address)
	return l.unix() || err == nil && loopbackHost(host) && len(l.ProxyFrom) == 0
}

// validateTLS also reads the files, so that a wrong certificate is told before
// anything stops working.
func (l *loader) validateTLS(one Listener, prefix string) {
	files := one.CertFile != "" || one.KeyFile != ""
	switch {
	case one.TLS == NoTLS && (files || one.SelfSigned):
		l.problem(prefix+".tls", `found "none", and a certificate; write "starttls" or "implicit", or leave the certificate out`)
	case one.TLS == NoTLS || l.bad[prefix+".tls"]:
	case files && one.SelfSigned:
		l.problem(prefix+".self_signed", "found true, and a certificate's file; keep one")
	case one.SelfSigned:
	case files && one.KeyFile == "":
		l.problem(prefix+".cert_file", "is set, and key_file is not; name the file with the certificate's key, which may be the same one")
	case files && one.CertFile == "":
		l.problem(prefix+".key_file", "is set, and cert_file is not; name the file with the certificate")
	case !files:
		l.problem(prefix+".tls", "found %s without a certificate; set cert_file and key_file, or self_signed = true inside a network", quote(string(one.TLS)))
	default:
		l.validatePair(prefix, one.CertFile, one.KeyFile)
	}
}

// validatePair reads a certificate and its key as the daemon will.
func (l *loader) validatePair(prefix, certFile, keyFile string) {
	var pem [2][]byte
	for i, file := range []struct{ path, name string }{{".cert_file", certFile}, {".key_file", keyFile}} {
		data, err := l.src.ReadFile(file.name)
		if err != nil {
			l.problem(prefix+file.path, "cannot read %s: %v", show(file.name), cause(err))
			return
		}
		pem[i] = data
	}
	pair, err := tls.X509KeyPair(pem[0], pem[1])
	if err != nil {
		l.problem(prefix+".cert_file", "%s and %s are no certificate and its key: %v", show(certFile), show(keyFile), err)
		return
	}
	l.loose(prefix+".key_file", keyFile)
	if leaf, err := x509.ParseCertificate(pair.Certificate[0]); err == nil && time.Now().After(leaf.NotAfter) {
		l.warn("%s: the certificate in %s ended on %s", prefix, certFile, leaf.NotAfter.UTC().Format(time.DateOnly))
	}
}
