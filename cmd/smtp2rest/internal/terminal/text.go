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

// Printable escapes everything in s that a terminal would act on or that would look like
// something else. Addresses and the answers of an API need it, because they come from
// strangers.
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

// Cut shortens s to width characters.
func Cut(s string, width int) string {
	if utf8.RuneCountInString(s) <= width {
		return s
	}
	return string([]rune(s)[:max(width-1, 0)]) + "…"
}

// Age formats the time since at in its largest unit, such as "3d".
func Age(at time.Time) string { return span(time.Since(at)) }

// Until formats the time until at in its largest unit, such as "2m". It rounds up, so that
// nothing happens later than it says.
func Until(at time.Time) string {
	d := time.Until(at)
	for _, unit := range []time.Duration{time.Hour, time.Minute, time.Second} {
		if d >= unit {
			return span((d + unit - 1).Truncate(unit))
		}
	}
	return span(max(d, 0) + time.Second - 1) // span drops the fraction of a second
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

// Clock formats a time for a person, in the local time zone.
func Clock(at time.Time) string { return at.Local().Format("2006-01-02 15:04:05") }

// Size formats a number of bytes for a person, such as "1.5 KiB".
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

// Address formats a sender as SMTP does: the null sender is "<>".
func Address(s string) string {
	if s == "" {
		return "<>"
	}
	return Printable(s)
}

// CopyRaw copies a mail: unchanged to a file or a pipe, and in printable form to a
// screen.
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
		case c == '\r': // dropped: each line ends with CR LF
		default:
			out.WriteString(Printable(string(c)))
		}
	}
}

// Counted formats a number with its noun, such as "1 mail" or "2 mails".
func Counted(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	if strings.HasSuffix(what, "s") {
		what += "e"
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// SplitList splits words at commas and spaces.
func SplitList(s string) []string {
	return strings.FieldsFunc(s, func(r rune) bool { return r == ',' || r == ' ' })
}

// Palette colours text, or returns it unchanged.
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
