package settings

import (
	"math"
	"testing"
	"time"

	"pgregory.net/rapid"
)

func TestParseDuration(t *testing.T) {
	for text, want := range map[string]time.Duration{
		"10s": 10 * time.Second, "0": 0, "0s": 0, "2d": 48 * time.Hour, "1d12h": 36 * time.Hour, "1.5h": 90 * time.Minute, "0d": 0, "-1s": -time.Second,
		"106751d": 106751 * Day,
	} {
		if got, err := ParseDuration(text); err != nil || got != want {
			t.Errorf("%q: %v, %v", text, got, err)
		}
	}
	for _, text := range []string{"", "5", "d", "-1d", "1.5d", "1d-5h", "1d+5h", "1d5", "1d1d", "106752d", "106751d24h", "99999999999999999999d", "5 s", "s"} {
		if got, err := ParseDuration(text); err == nil {
			t.Errorf("%q: %v", text, got)
		}
	}
}

func TestParseSize(t *testing.T) {
	for text, want := range map[string]int64{
		"0": 0, "512": 512, "10MiB": 10 << 20, "25MB": 25e6, "25mb": 25e6, "1 KiB": 1024, "1GiB": 1 << 30, "7B": 7,
	} {
		if got, err := ParseSize(text); err != nil || got != want {
			t.Errorf("%q: %d, %v", text, got, err)
		}
	}
	for _, text := range []string{"", "MiB", "25M", "1.5MiB", "-1", "1 2MB", "1TB", "9223372036854775807KB", "9999999999999999999", "1iB", "1Mi"} {
		if got, err := ParseSize(text); err == nil {
			t.Errorf("%q: %d", text, got)
		}
	}
}

// TestUnitsRoundTrip: what is written is read back, so that Describe can be
// pasted into the file.
func TestUnitsRoundTrip(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		d := time.Duration(rapid.Int64Range(0, math.MaxInt64).Draw(t, "nanoseconds"))
		if rapid.Bool().Draw(t, "whole minutes") {
			d = d.Truncate(time.Minute)
		}
		if got, err := ParseDuration(FormatDuration(d)); err != nil || got != d {
			t.Fatalf("%v is written %s and read %v, %v", d, FormatDuration(d), got, err)
		}
		n := rapid.Int64Range(0, math.MaxInt64).Draw(t, "bytes") >> rapid.IntRange(0, 62).Draw(t, "shift")
		if got, err := ParseSize(FormatSize(n)); err != nil || got != n {
			t.Fatalf("%d is written %s and read %d, %v", n, FormatSize(n), got, err)
		}
	})
	for d, want := range map[time.Duration]string{0: "0s", 10 * time.Second: "10s", 5 * time.Minute: "5m", time.Hour: "1h", 90 * time.Minute: "1h30m",
		2 * Day: "2d", 36 * time.Hour: "1d12h", 70 * time.Second: "1m10s", 100 * time.Minute: "1h40m", 10 * time.Minute: "10m", 10 * time.Hour: "10h"} {
		if got := FormatDuration(d); got != want {
			t.Errorf("%v is written %s, want %s", d, got, want)
		}
	}
	for n, want := range map[int64]string{0: "0", 1: "1B", 1000: "1KB", 1024: "1KiB", 25 << 20: "25MiB", 25e6: "25MB", 1 << 30: "1GiB", 1500: "1500B"} {
		if got := FormatSize(n); got != want {
			t.Errorf("%d is written %s, want %s", n, got, want)
		}
	}
}

func TestNearest(t *testing.T) {
	words := []string{"timeout", "connect_timeout", "url", "path", "rate", "serve", "send"}
	for word, want := range map[string]string{
		"timout": "timeout", "tiemout": "timeout", "Timeout": "timeout", "time_out": "timeout", "connecttimeout": "connect_timeout",
		"urls": "url", "ulr": "url", "sevre": "serve", "": "", "colour": "", "x": "", "retain": "",
	} {
		if got := Nearest(word, words); got != want {
			t.Errorf("%q: %q, want %q", word, got, want)
		}
	}
	if got := Nearest("serve", nil); got != "" {
		t.Errorf("among none: %q", got)
	}
}

func TestDistance(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		word := rapid.StringMatching(`[a-d]{0,6}`)
		a, b := word.Draw(t, "a"), word.Draw(t, "b")
		d := distance(a, b)
		if d != distance(b, a) || (d == 0) != (a == b) || d > max(len(a), len(b)) && d != len(a)+len(b) {
			t.Fatalf("%q to %q is %d, back %d", a, b, d, distance(b, a))
		}
	})
}
