package config

import (
	"io/fs"
	"net"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"

	"github.com/smtp2rest/smtp2rest/internal/settings"
	"github.com/smtp2rest/smtp2rest/relay/spool"
)

// place is an address to listen on, with the setting that names it.
type place struct {
	setting, address string // as written
}

// socket returns the path of a unix socket, or "".
func (p place) socket() string {
	path, unix := strings.CutPrefix(p.address, "unix:")
	if !unix && !filepath.IsAbs(path) {
		return ""
	}
	return filepath.Clean(path)
}

// validatePlaces finds addresses that are used twice, and sockets whose path is
// another file. The command 'check' must report that, not only the next start.
func (l *loader) validatePlaces() {
	var all []place
	add := func(setting, address string) {
		if address != "" && !l.bad[setting] {
			all = append(all, place{setting, address})
		}
	}
	for i, one := range l.cfg.Listeners {
		add(settings.Numbered("listener", i, len(l.cfg.Listeners))+".address", one.Address)
	}
	add("admin.address", l.cfg.Admin.Address)
	add("admin.socket", l.cfg.Admin.Socket)
	add("webhook.address", l.cfg.Webhook.Address)
	for i, p := range all {
		l.validateSocket(p)
		for _, earlier := range all[:i] {
			if l.clash(earlier, p) {
				break // one problem is enough
			}
		}
	}
}

// clash adds a problem if two places conflict, and reports whether they do.
func (l *loader) clash(earlier, p place) bool {
	switch {
	case earlier.socket() != "" && earlier.socket() == p.socket():
		l.problem(p.setting, "found %s, the socket that %s has already; write another path", settings.Show(p.address), earlier.setting)
	case !sameTCP(earlier.address, p.address):
		return false
	case earlier.address == p.address:
		l.problem(p.setting, "found %s, which %s has already; write another address or port", settings.Show(p.address), earlier.setting)
	default:
		l.problem(p.setting, "found %s, which %s = %s takes as well; write another port, or leave one of them out",
			settings.Show(p.address), earlier.setting, settings.Show(earlier.address))
	}
	return true
}

// validateSocket refuses the path of an existing file that is not a socket. A socket
// that an earlier process left behind is replaced.
func (l *loader) validateSocket(p place) {
	path := p.socket()
	if path == "" {
		return
	}
	info, err := l.src.Stat(path)
	if err != nil || info.Mode().Type() == fs.ModeSocket {
		return // without an error at the start, if need be
	}
	what := "a file"
	if info.IsDir() {
		what = "a directory"
	}
	l.problem(p.setting, "found %s, which is %s and no socket; write a path where nothing is yet", settings.Show(p.address), what)
}

// validateDataDir refuses a data directory that is none, or that nothing can be kept in.
// One that is not there yet is made at the start.
func (l *loader) validateDataDir() {
	const path = "queue.data_dir"
	dir := l.cfg.Queue.DataDir
	if l.cfg.Queue.Mode != OnDisk || l.bad[path] {
		return
	}
	clean := filepath.Clean(dir)
	inSystem := slices.ContainsFunc([]string{"/dev", "/proc", "/sys"}, func(d string) bool { return clean == d || strings.HasPrefix(clean, d+"/") })
	if clean == "/" || inSystem && !strings.HasPrefix(clean, "/dev/shm/") {
		l.problem(path, `found %s, where the system has no files of yours; write a directory on a disk, as in "/var/lib/smtp2rest"`, settings.Show(dir))
		return
	}
	for at := clean; ; at = filepath.Dir(at) {
		info, err := l.src.Stat(at)
		if err == nil && !info.IsDir() {
			l.problem(path, `found %s, and %s is no directory; write one, as in "/var/lib/smtp2rest"`, settings.Show(dir), settings.Show(at))
		}
		if err == nil || at == filepath.Dir(at) {
			return
		}
	}
}

// validateSpool refuses a spool without a queue: what is handed over again after a crash
// is known by the queue alone.
func (l *loader) validateSpool() {
	const path = "sendmail.spool"
	dir := &l.cfg.Sendmail.Spool
	if l.cfg.Queue.Mode == OnDisk || l.bad[path] || *dir == spool.Off {
		return
	}
	if l.find(path).origin != "default" {
		l.problem(path, "found %s, and queue.mode is \"none\": mail is handed over into the queue; write \"none\"", settings.Show(*dir))
		return
	}
	*dir = spool.Off
}

// sameTCP reports whether two addresses cannot both be listened on.
func sameTCP(a, b string) bool {
	hostA, portA, errA := net.SplitHostPort(a)
	hostB, portB, errB := net.SplitHostPort(b)
	if errA != nil || errB != nil || portA != portB || portA == "0" {
		return false
	}
	hostA, everyA := tcpHost(hostA)
	hostB, everyB := tcpHost(hostB)
	return everyA || everyB || hostA == hostB
}

// tcpHost returns a host in one form, and whether it means every address. At 0.0.0.0
// Go also listens for IPv6, and at :: for IPv4.
func tcpHost(host string) (one string, every bool) {
	if host == "" {
		return "", true
	}
	if strings.EqualFold(host, "localhost") {
		host = "127.0.0.1" // which it is listened on
	}
	addr, err := netip.ParseAddr(host)
	if err != nil {
		return strings.ToLower(host), false // whatever it stands for
	}
	return addr.Unmap().String(), addr.Unmap().IsUnspecified()
}
