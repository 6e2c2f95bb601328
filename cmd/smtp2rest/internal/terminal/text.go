package terminal

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

// Printable is s with everything that a terminal would act on, or that would
// show other than it is, written as an escape. Addresses, and what an API
// answers, come from strangers.
func Printable(s string) string {
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

// Cut shortens s to so many characters.
func Cut(s string, width int) string {
	if utf8.RuneCountInString(s) <= width {
		return s
	}
	return string([]rune(s)[:max(width-1, 0)]) + "…"
}

// pad fills s with spaces.
func pad(s string, width int) string {
	return s + strings.Repeat(" ", max(width-utf8.RuneCountInString(s), 0))
}

// Age says how long ago a time was, in its largest unit.
func Age(at time.Time) string { return span(time.Since(at)) }

// Until says how long it is until a time.
func Until(at time.Time) string {
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

// Clock is a time for people, who are where the relay is.
func Clock(at time.Time) string { return at.Local().Format("2006-01-02 15:04:05") }

func Size(n int64) string {
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

// Address is a sender as it is written in SMTP.
func Address(s string) string {
	if s == "" {
		return "<>"
	}
	return Printable(s)
}

// CopyRaw copies a mail as it is, or so that a terminal shows it.
func CopyRaw(t *Terminal, r io.Reader) error {
	if t.Width == 0 {
		_, err := io.Copy(t.Out, r)
		return err
	}
	in, out := bufio.NewReader(r), bufio.NewWriter(t.Out)
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
			out.WriteString(Printable(string(c)))
		}
	}
}

func Counted(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

func SplitList(s string) []string {
	return strings.FieldsFunc(s, func(r rune) bool { return r == ',' || r == ' ' })
}

// Palette colours text, or leaves it as it is.
type Palette struct{ on bool }

func (p Palette) paint(code, s string) string {
	if !p.on {
		return s
	}
	return "\x1b[" + code + "m" + s + "\x1b[0m"
}

func (p Palette) Bold(s string) string { return p.paint("1", s) }

func (p Palette) Dim(s string) string { return p.paint("2", s) }

func (p Palette) Red(s string) string { return p.paint("31", s) }

func (p Palette) Green(s string) string { return p.paint("32", s) }

// NoState names the states that there are.
func NoState(word string, names []string) error {
	return Usagef("there is no state %q%s\nStates are: %s.", word, DidYouMean(word, names), strings.Join(names, ", "))
}
