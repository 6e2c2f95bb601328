package settings

import (
	"fmt"
	"math"
	"net/netip"
	"strconv"
	"strings"
	"time"
)

// Day is a unit that time.ParseDuration does not know.
const Day = 24 * time.Hour

// ParseDuration is time.ParseDuration, but allows days in front, as in "1d12h".
func ParseDuration(s string) (time.Duration, error) {
	wrong := fmt.Errorf(`found %s, which is not a time; write a number with its unit: ms, s, m, h or d, as in "10s"`, Show(s))
	days, rest, ok := strings.Cut(s, "d")
	if !ok {
		d, err := time.ParseDuration(s)
		if err != nil {
			return 0, wrong
		}
		return d, nil
	}
	n, err := strconv.ParseUint(days, 10, 32)
	if err != nil || int64(n) > math.MaxInt64/int64(Day) {
		return 0, wrong
	}
	total := time.Duration(n) * Day
	if rest == "" {
		return total, nil
	}
	// A sign after the days makes no sense.
	d, err := time.ParseDuration(rest)
	if err != nil || rest[0] == '-' || rest[0] == '+' || d > math.MaxInt64-total {
		return 0, wrong
	}
	return total + d, nil
}

// FormatDuration returns the shortest text that ParseDuration reads as d.
func FormatDuration(d time.Duration) string {
	if d < 0 {
		return d.String()
	}
	var days string
	if n := d / Day; n > 0 {
		days = strconv.FormatInt(int64(n), 10) + "d"
		if d %= Day; d == 0 {
			return days
		}
	}
	s := d.String()
	if strings.HasSuffix(s, "m0s") {
		s = strings.TrimSuffix(s, "0s")
	}
	if strings.HasSuffix(s, "h0m") {
		s = strings.TrimSuffix(s, "0m")
	}
	return days + s
}

// sizeUnits are the units of sizes. FormatSize prefers the first ones.
func sizeUnits() []struct {
	name  string
	bytes int64
} {
	return []struct {
		name  string
		bytes int64
	}{
		{"GiB", 1 << 30}, {"GB", 1e9}, {"MiB", 1 << 20}, {"MB", 1e6}, {"KiB", 1 << 10}, {"KB", 1e3}, {"B", 1},
	}
}

// ParseSize reads a number of bytes with or without a unit, as in "10MiB", "25MB" or
// "512". Case does not matter. It refuses "M" alone, which has two meanings.
func ParseSize(s string) (int64, error) {
	wrong := fmt.Errorf(`found %s, which is not a size; write a whole number with its unit: KiB, MiB, GiB, KB, MB or GB, as in "10MiB"`, Show(s))
	digits := strings.TrimRight(s, "KMGIBkmgib")
	unit, factor := s[len(digits):], int64(1)
	if unit != "" {
		factor = 0
		for _, u := range sizeUnits() {
			if strings.EqualFold(u.name, unit) {
				factor = u.bytes
			}
		}
	}
	n, err := strconv.ParseInt(strings.TrimSuffix(digits, " "), 10, 64)
	if err != nil || factor == 0 || n < 0 || n > math.MaxInt64/factor {
		return 0, wrong
	}
	return n * factor, nil
}

// FormatSize returns n in the largest unit that divides it, and prefers binary units.
func FormatSize(n int64) string {
	for _, u := range sizeUnits() {
		if n != 0 && n%u.bytes == 0 {
			return strconv.FormatInt(n/u.bytes, 10) + u.name
		}
	}
	return strconv.FormatInt(n, 10)
}

// parseNetwork reads a network or one address.
func parseNetwork(s string) (netip.Prefix, error) {
	if a, err := netip.ParseAddr(s); err == nil && a.Zone() == "" && !a.Is4In6() {
		return netip.PrefixFrom(a, a.BitLen()), nil
	}
	p, err := netip.ParsePrefix(s)
	if err != nil {
		return netip.Prefix{}, fmt.Errorf(`found %s, which is not a network; write one as in "10.1.0.0/16" or "fd00::/8"`, Show(s))
	}
	if p.Addr().Is4In6() {
		return netip.Prefix{}, fmt.Errorf(`found %s; write an IPv4 network as such, as in "10.1.0.0/16"`, Show(s))
	}
	if p != p.Masked() {
		return netip.Prefix{}, fmt.Errorf("found %s, an address in the network %s; write that, or %s for the one address",
			Show(s), Quote(p.Masked().String()), Quote(p.Addr().String()))
	}
	return p, nil
}
