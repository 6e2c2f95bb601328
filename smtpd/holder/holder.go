// Package holder finds the program that listens on a TCP port which this one wanted, so
// that the error can name it. It reads Linux's /proc once, with a time limit, after
// listening has failed. If it finds nothing, the error says just "another program".
package holder

import (
	"cmp"
	"encoding/hex"
	"fmt"
	"net/netip"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// patience bounds the look through the processes. It takes milliseconds, or seconds on a
// machine that has much else to do.
const patience = 5 * time.Second

// overflowUID is the user that the kernel shows if the real one has no number in our user
// namespace (user_namespaces(7)), such as that of our systemd unit.
const overflowUID = "65534"

// Of names the program that listens on a TCP address, such as "exim4 (pid 812)", or "a
// program of the user Debian-exim" if this one may not look closer. It returns "" if it
// finds nothing.
func Of(address string) string {
	host, port, err := split(address)
	if err != nil {
		return ""
	}
	return find("/proc", host, port, time.Now().Add(patience))
}

// Says returns a sentence such as "exim4 (pid 812) uses this port", or "another program
// uses this port".
func Says(address string) string {
	return cmp.Or(Of(address), "another program") + " uses this port"
}

// split reads host:port. The address is zero for all addresses and for a name.
func split(address string) (netip.Addr, uint16, error) {
	i := strings.LastIndexByte(address, ':')
	port, err := strconv.ParseUint(address[i+1:], 10, 16)
	if err != nil {
		return netip.Addr{}, 0, err
	}
	host, err := netip.ParseAddr(strings.Trim(address[:max(i, 0)], "[]"))
	if err != nil || host.IsUnspecified() {
		return netip.Addr{}, uint16(port), nil
	}
	return host.Unmap(), uint16(port), nil
}

// listening is a row of /proc/net/tcp.
type listening struct{ uid, inode string }

func find(proc string, host netip.Addr, port uint16, until time.Time) string {
	var rows []listening
	for _, table := range []string{"tcp", "tcp6"} {
		// Not /proc/net, which our unit hides (ProcSubset=pid).
		text, err := os.ReadFile(filepath.Join(proc, "self", "net", table))
		if err != nil {
			continue
		}
		rows = append(rows, rowsOf(string(text), host, port)...)
	}
	if len(rows) == 0 {
		return ""
	}
	if pid := process(proc, rows, until); pid != "" {
		return named(proc, pid)
	}
	if rows[0].uid == overflowUID {
		return ""
	}
	if u, err := user.LookupId(rows[0].uid); err == nil {
		return "a program of the user " + u.Username
	}
	return "a program of the user with uid " + rows[0].uid
}

// rowsOf returns the listening sockets that keep another one from listening on host and
// port (proc(5), /proc/net/tcp).
func rowsOf(table string, host netip.Addr, port uint16) (rows []listening) {
	const listen = "0A"
	for line := range strings.Lines(table) {
		f := strings.Fields(line)
		if len(f) < 10 || f[3] != listen {
			continue
		}
		at, ok := local(f[1])
		if !ok || at.Port() != port || host.IsValid() && !at.Addr().IsUnspecified() && at.Addr() != host {
			continue
		}
		rows = append(rows, listening{uid: f[7], inode: f[9]})
	}
	return rows
}

// local reads an address as the kernel writes it: words of 32 bits, each in the byte
// order of the machine, which is little endian wherever this runs.
func local(text string) (netip.AddrPort, bool) {
	host, port, _ := strings.Cut(text, ":")
	raw, err := hex.DecodeString(host)
	number, perr := strconv.ParseUint(port, 16, 16)
	if err != nil || perr != nil || len(raw)%4 != 0 {
		return netip.AddrPort{}, false
	}
	for word := range slices.Chunk(raw, 4) {
		slices.Reverse(word)
	}
	addr, ok := netip.AddrFromSlice(raw)
	return netip.AddrPortFrom(addr.Unmap(), uint16(number)), ok
}

// process returns the pid of a process that has one of the sockets open, or "". Only
// root can look into the processes of other users.
func process(proc string, rows []listening, until time.Time) string {
	if own := strconv.Itoa(os.Getpid()); has(proc, own, rows) { // two settings with one address
		return own
	}
	list, err := os.ReadDir(proc)
	if err != nil {
		return ""
	}
	for _, e := range list {
		if time.Now().After(until) {
			return ""
		}
		if _, err := strconv.Atoi(e.Name()); err == nil && has(proc, e.Name(), rows) {
			return e.Name()
		}
	}
	return ""
}

// has reports whether a process has one of the sockets open.
func has(proc, pid string, rows []listening) bool {
	fds, _ := os.ReadDir(filepath.Join(proc, pid, "fd")) // of others: no permission
	for _, fd := range fds {
		to, _ := os.Readlink(filepath.Join(proc, pid, "fd", fd.Name())) // it may be gone
		if slices.ContainsFunc(rows, func(r listening) bool { return to == "socket:["+r.inode+"]" }) {
			return true
		}
	}
	return false
}

func named(proc, pid string) string {
	if pid == strconv.Itoa(os.Getpid()) {
		return "this daemon itself"
	}
	name, err := os.ReadFile(filepath.Join(proc, pid, "comm"))
	if err != nil {
		return "pid " + pid
	}
	return fmt.Sprintf("%s (pid %s)", strings.TrimSpace(string(name)), pid)
}
