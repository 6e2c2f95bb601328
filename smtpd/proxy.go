package smtpd

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"net/netip"
	"strconv"
	"strings"
)

const (
	// proxySignature begins version 2. Version 1's shortest header is longer.
	proxySignature = "\r\n\r\n\x00\r\nQUIT\n"
	maxProxyLine   = 107     // the longest header of version 1, with its CRLF
	maxProxyBytes  = 4 << 10 // of version 2: addresses and what else a proxy likes to say
)

var errNoProxy = errors.New("no PROXY header, which a listener's proxy_from clients have to send")

// readProxy reads the header of the PROXY protocol, version 1 or 2
// (https://www.haproxy.org/download/3.0/doc/proxy-protocol.txt), and nothing behind it.
// The address is zero if the proxy does not say one, as for its own health checks:
// such a client is in no network.
//
// We tried pires/go-proxyproto (v0.15) instead. It refuses a header of version 1 that
// comes in more than one segment, which the protocol advises to accept, and one of
// version 2 without an address; and it reads beyond the header, where TLS begins.
func readProxy(r io.Reader) (netip.AddrPort, error) {
	head := make([]byte, len(proxySignature), maxProxyLine)
	if _, err := io.ReadFull(r, head); err != nil {
		return netip.AddrPort{}, unexpected(err)
	}
	if string(head) == proxySignature {
		return readProxyBinary(r)
	}
	if !bytes.HasPrefix(head, []byte("PROXY ")) {
		return netip.AddrPort{}, errNoProxy
	}
	for !bytes.HasSuffix(head, []byte("\n")) {
		if len(head) == maxProxyLine {
			return netip.AddrPort{}, errNoProxy
		}
		head = head[:len(head)+1]
		if _, err := io.ReadFull(r, head[len(head)-1:]); err != nil {
			return netip.AddrPort{}, unexpected(err)
		}
	}
	return parseProxyLine(string(head))
}

// parseProxyLine reads a header of version 1.
func parseProxyLine(line string) (netip.AddrPort, error) {
	line, ok := strings.CutSuffix(line, "\r\n")
	f := strings.Split(line, " ")
	switch {
	case !ok:
	case f[1] == "UNKNOWN": // whatever follows
		return netip.AddrPort{}, nil
	case len(f) == 6 && (f[1] == "TCP4" || f[1] == "TCP6"):
		from, err1 := netip.ParseAddr(f[2])
		to, err2 := netip.ParseAddr(f[3])
		port, err3 := strconv.ParseUint(f[4], 10, 16)
		_, err4 := strconv.ParseUint(f[5], 10, 16)
		six := f[1] == "TCP6"
		if errors.Join(err1, err2, err3, err4) == nil && from.Is6() == six && to.Is6() == six && from.Zone() == "" {
			return netip.AddrPortFrom(from.Unmap(), uint16(port)), nil
		}
	}
	return netip.AddrPort{}, errNoProxy
}

// readProxyBinary reads a header of version 2 behind its signature.
func readProxyBinary(r io.Reader) (netip.AddrPort, error) {
	var fixed [4]byte
	if _, err := io.ReadFull(r, fixed[:]); err != nil {
		return netip.AddrPort{}, unexpected(err)
	}
	size := int(binary.BigEndian.Uint16(fixed[2:]))
	if size > maxProxyBytes {
		return netip.AddrPort{}, errNoProxy
	}
	body := make([]byte, size)
	if _, err := io.ReadFull(r, body); err != nil {
		return netip.AddrPort{}, unexpected(err)
	}
	const local, proxied = 0x20, 0x21
	if fixed[0] == local {
		return netip.AddrPort{}, nil
	}
	if fixed[0] != proxied {
		return netip.AddrPort{}, errNoProxy
	}
	octets := map[byte]int{0x11: 4, 0x21: 16}[fixed[1]] // TCP over IPv4, over IPv6
	switch {
	case octets == 0: // a unix socket, or not told
		return netip.AddrPort{}, nil
	case size < 2*octets+4:
		return netip.AddrPort{}, errNoProxy
	}
	addr, _ := netip.AddrFromSlice(body[:octets]) // 4 or 16 octets are always one
	return netip.AddrPortFrom(addr.Unmap(), binary.BigEndian.Uint16(body[2*octets:])), nil
}
