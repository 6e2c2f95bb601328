package config

import (
	"net/netip"
	"testing"
)

func TestTooWide(t *testing.T) {
	for text, want := range map[string]bool{
		"0.0.0.0/0": true, "0.0.0.0/1": true, "10.0.0.0/7": true, "10.0.0.0/8": false, "172.16.0.0/12": false, "172.0.0.0/8": true,
		"192.168.0.0/16": false, "192.168.0.0/15": true, "100.64.0.0/10": false, "127.0.0.0/8": false,
		"198.51.0.0/15": true, "198.51.0.0/16": false, "203.0.113.0/24": false, "8.8.8.8/32": false,
		"::/0": true, "2000::/3": true, "2001:db8::/31": true, "2001:db8::/32": false, "2001:db8::/64": false, "fc00::/7": false, "fc00::/6": true,
		"fe80::/10": false, "::1/128": false, "2002::/16": true, "64:ff9b::/96": true, "64:ff9b::/32": true, "64:ff9b::c633:6400/120": false,
	} {
		p := netip.MustParsePrefix(text)
		if p != p.Masked() {
			p = p.Masked()
		}
		if got := tooWide(p); got != want {
			t.Errorf("%s: %v", text, got)
		}
	}
}

func TestTooMany(t *testing.T) {
	public := func(n int) (all []netip.Prefix) {
		for i := range n {
			all = append(all, netip.PrefixFrom(netip.AddrFrom4([4]byte{198, byte(i), 0, 0}), 16))
		}
		return all
	}
	own := netip.MustParsePrefix("10.0.0.0/8")
	for n, want := range map[int]bool{0: false, 1: false, 16: false, 17: true, 200: true} {
		if got := tooMany(append(public(n), own, own)); got != want {
			t.Errorf("%d public networks: %v", n, got)
		}
	}
}
