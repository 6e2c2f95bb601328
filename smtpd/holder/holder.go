// Package holder finds out which program has a TCP port that this one wanted, so
// that the error can name it. It is Linux's /proc read once, with a bound, when
// listening has failed already: whatever it does not find is simply not said.
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

// patience bounds the look through the processes.
const patience = time.Second

// overflowUID is whom the kernel names where a user has no name in our own
// namespace of users (user_namespaces(7)), such as our unit's.
const overflowUID = "65534"

// Of names who listens on a TCP address, as in "exim4 (pid 812)", or "a program
// of the user Debian-exim" where this one may not look; "" is not known.
func Of(address string) string {
	host, port, err := split(address)
	if err != nil {
		return ""
	}
	return find("/proc", host, port, time.Now().Add(patience))
}

// Says is Of in a sentence, whether it is known or not.
func Says(address string) string {
	return cmp.Or(Of(address), "another program") + " uses this port"
}

// split is an address with the zero Addr for all addresses and for names.
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

// rowsOf are the sockets that listen where one for host and port is in the way
// (proc(5), /proc/net/tcp).
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

// local is an address as the kernel writes it: words of 32 bits, each in the
// machine's order of bytes, which is little endian wherever this runs.
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

// process is the pid of one that has one of the sockets open; "" when none is
// found, as of other users' processes it is only by root.
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
