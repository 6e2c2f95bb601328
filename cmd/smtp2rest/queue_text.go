package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"
)

// printable is s with everything that a terminal would act on, or that would
// show other than it is, written as an escape. Addresses, and what an API
// answers, come from strangers.
func printable(s string) string {
	clean := func(r rune) bool { return unicode.IsPrint(r) && r != utf8.RuneError }
	if strings.IndexFunc(s, func(r rune) bool { return !clean(r) }) < 0 {
		return s
	}
	var b strings.Builder
	for _, r := range s {
		if clean(r) {
			b.WriteRune(r)
		} else {
			b.WriteString(strings.Trim(strconv.QuoteRuneToASCII(r), "'"))
		}
	}
	return b.String()
}

// cut shortens s to so many characters.
func cut(s string, width int) string {
	if utf8.RuneCountInString(s) <= width {
		return s
	}
	return string([]rune(s)[:max(width-1, 0)]) + "…"
}

// pad fills s with spaces.
func pad(s string, width int) string {
	return s + strings.Repeat(" ", max(width-utf8.RuneCountInString(s), 0))
}

// age says how long ago a time was, in its largest unit.
func age(at time.Time) string { return span(time.Since(at)) }

// until says how long it is until a time.
func until(at time.Time) string {
	d := time.Until(at)
	for _, unit := range []time.Duration{time.Hour, time.Minute, time.Second} {
		if d >= unit {
			return span((d + unit - 1).Truncate(unit)) // never sooner than it is
		}
	}
	return span(max(d, 0) + time.Second - 1)
}

func span(d time.Duration) string {
	switch d = max(d, 0); {
	case d < time.Minute:
		return fmt.Sprintf("%ds", int(d.Seconds()))
	case d < time.Hour:
		return fmt.Sprintf("%dm", int(d.Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf("%dh", int(d.Hours()))
	default:
		return fmt.Sprintf("%dd", int(d.Hours()/24))
	}
}

// clock is a time for people, who are where the relay is.
func clock(at time.Time) string { return at.Local().Format("2006-01-02 15:04:05") }

func size(n int64) string {
	const unit = 1 << 10
	switch {
	case n < unit:
		return fmt.Sprintf("%d bytes", n)
	case n < unit*unit:
		return fmt.Sprintf("%.1f KiB", float64(n)/unit)
	default:
		return fmt.Sprintf("%.1f MiB", float64(n)/(unit*unit))
	}
}

// address is a sender as it is written in SMTP.
func address(s string) string {
	if s == "" {
		return "<>"
	}
	return printable(s)
}

// copyRaw copies a mail as it is, or so that a terminal shows it.
func copyRaw(t *terminal, r io.Reader) error {
	if t.width == 0 {
		_, err := io.Copy(t.out, r)
		return err
	}
	in, out := bufio.NewReader(r), bufio.NewWriter(t.out)
	for {
		c, n, err := in.ReadRune()
		if err != nil {
			if errors.Is(err, io.EOF) {
				err = nil
			}
			return errors.Join(err, out.Flush())
		}
		switch {
		case c == utf8.RuneError && n == 1:
			out.WriteString(`\ufffd`)
		case c == '\n' || c == '\t':
			out.WriteRune(c)
		case c == '\r': // of each line's end
		default:
			out.WriteString(printable(string(c)))
		}
	}
}
