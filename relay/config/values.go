package config

import (
	"fmt"
	"log/slog"
	"math"
	"net/netip"
	"strconv"
	"strings"
	"time"
)

// value is one kind of setting, bound to its place in a Config.
type value interface {
	// set takes what TOML gave: string, int64, float64, bool, time.Time or
	// []any. The error says what was found and what to write.
	set(v any) error
	// text is the value as TOML writes it.
	text() string
}

type textValue struct {
	p     *string
	check func(string) error // nil takes everything printable
}

func (t textValue) set(v any) error {
	s, ok := v.(string)
	if !ok {
		return wrongType(v, `write text in quotes`)
	}
	check := t.check
	if check == nil {
		check = checkText
	}
	if err := check(s); err != nil {
		return err
	}
	*t.p = s
	return nil
}

func (t textValue) text() string { return quote(*t.p) }

type wordValue[T ~string] struct {
	p     *T
	words []T
}

func (w wordValue[T]) set(v any) error {
	words := make([]string, len(w.words))
	for i, word := range w.words {
		words[i] = string(word)
	}
	s, err := oneOf(v, words)
	if err == nil {
		*w.p = T(s)
	}
	return err
}

func (w wordValue[T]) text() string { return quote(string(*w.p)) }

type levelValue struct{ p *slog.Level }

func (l levelValue) set(v any) error {
	s, err := oneOf(v, []string{"debug", "info", "warn", "error"})
	if err != nil {
		return err
	}
	return l.p.UnmarshalText([]byte(s))
}

func (l levelValue) text() string { return quote(strings.ToLower(l.p.String())) }

// oneOf is v if it is one of words.
func oneOf(v any, words []string) (string, error) {
	quoted := make([]string, len(words))
	for i, w := range words {
		quoted[i] = quote(w)
	}
	allowed := strings.Join(quoted[:len(quoted)-1], ", ") + " or " + quoted[len(quoted)-1]
	s, ok := v.(string)
	if !ok {
		return "", wrongType(v, "write "+allowed)
	}
	for _, w := range words {
		if s == w {
			return s, nil
		}
	}
	if near := Nearest(s, words); near != "" {
		return "", fmt.Errorf("found %s; did you mean %s? allowed is %s", show(s), quote(near), allowed)
	}
	return "", fmt.Errorf("found %s; allowed is %s", show(s), allowed)
}

type flagValue struct{ p *bool }

func (f flagValue) set(v any) error {
	b, ok := v.(bool)
	if !ok {
		return wrongType(v, "write true or false, without quotes")
	}
	*f.p = b
	return nil
}

func (f flagValue) text() string { return strconv.FormatBool(*f.p) }

type countValue struct {
	p        *int
	min, max int64
}

func (c countValue) set(v any) error {
	n, ok := v.(int64)
	if !ok {
		return wrongType(v, fmt.Sprintf("write a whole number without quotes, from %d to %d", c.min, c.max))
	}
	if n < c.min || n > c.max {
		return fmt.Errorf("found %d; allowed is from %d to %d", n, c.min, c.max)
	}
	*c.p = int(n)
	return nil
}

func (c countValue) text() string { return strconv.Itoa(*c.p) }

type rateValue struct {
	p        *float64
	min, max float64
}

func (r rateValue) set(v any) error {
	var f float64
	switch n := v.(type) {
	case float64:
		f = n
	case int64:
		f = float64(n)
	default:
		return wrongType(v, fmt.Sprintf("write a number without quotes, from %v to %v", r.min, r.max))
	}
	// TOML has nan and inf; a comparison with nan is always false.
	if math.IsNaN(f) || f < r.min || f > r.max {
		return fmt.Errorf("found %v; allowed is from %v to %v", f, r.min, r.max)
	}
	*r.p = f
	return nil
}

func (r rateValue) text() string { return strconv.FormatFloat(*r.p, 'f', -1, 64) }

type timeValue struct {
	p        *time.Duration
	min, max time.Duration
}

// set takes no number: a bare 5 would be five of what? Zero is zero in every
// unit.
func (t timeValue) set(v any) error {
	var d time.Duration
	switch s := v.(type) {
	case string:
		var err error
		if d, err = ParseDuration(s); err != nil {
			return err
		}
	case int64:
		if s != 0 {
			return fmt.Errorf(`found the number %d, which has no unit; write it in quotes with one, as in "%ds"`, s, s)
		}
	default:
		return wrongType(v, `write a time in quotes, as in "10s"`)
	}
	if d < t.min || d > t.max {
		return fmt.Errorf("found %s; allowed is from %s to %s", quote(FormatDuration(d)), quote(FormatDuration(t.min)), quote(FormatDuration(t.max)))
	}
	*t.p = d
	return nil
}

func (t timeValue) text() string { return quote(FormatDuration(*t.p)) }

type sizeValue struct {
	p        *int64
	min, max int64
}

func (z sizeValue) set(v any) error {
	var n int64
	switch s := v.(type) {
	case string:
		var err error
		if n, err = ParseSize(s); err != nil {
			return err
		}
	case int64:
		n = s
	default:
		return wrongType(v, `write a size in quotes, as in "10MiB", or a number of bytes`)
	}
	if n < z.min || n > z.max {
		return fmt.Errorf("found %s; allowed is from %s to %s", show(v), quote(FormatSize(z.min)), quote(FormatSize(z.max)))
	}
	*z.p = n
	return nil
}

func (z sizeValue) text() string { return quote(FormatSize(*z.p)) }

type domainsValue struct{ p *[]string }

func (d domainsValue) set(v any) error {
	list, err := textList(v, `write a list of domains, as in ["mail.example.com"]`)
	if err != nil {
		return err
	}
	for i, s := range list {
		if err := checkDomain(s); err != nil {
			return err
		}
		list[i] = strings.ToLower(s)
	}
	*d.p = list
	return nil
}

func (d domainsValue) text() string { return quoteList(*d.p) }

type networksValue struct{ p *[]netip.Prefix }

func (n networksValue) set(v any) error {
	list, err := textList(v, `write a list of networks, as in ["10.1.0.0/16"]`)
	if err != nil {
		return err
	}
	networks := make([]netip.Prefix, len(list))
	for i, s := range list {
		if networks[i], err = parseNetwork(s); err != nil {
			return err
		}
	}
	*n.p = networks
	return nil
}

func (n networksValue) text() string {
	list := make([]string, len(*n.p))
	for i, p := range *n.p {
		list[i] = p.String()
	}
	return quoteList(list)
}

func textList(v any, want string) ([]string, error) {
	list, ok := v.([]any)
	if !ok {
		return nil, wrongType(v, want)
	}
	out := make([]string, len(list))
	for i, item := range list {
		if out[i], ok = item.(string); !ok {
			return nil, fmt.Errorf("item %d of the list is %s; %s", i+1, kindOf(item), want)
		}
		for _, earlier := range out[:i] {
			if strings.EqualFold(earlier, out[i]) {
				return nil, fmt.Errorf("found %s twice; once is enough", show(out[i]))
			}
		}
	}
	return out, nil
}

func wrongType(v any, want string) error {
	return fmt.Errorf("found %s; %s", kindOf(v), want)
}

// kindOf names what TOML gave, with its value where that is short.
func kindOf(v any) string {
	switch v := v.(type) {
	case string:
		return "the text " + show(v)
	case int64, float64:
		return fmt.Sprintf("the number %v", v)
	case bool:
		return strconv.FormatBool(v)
	case time.Time:
		return "a date or time"
	case []any:
		return "a list"
	default:
		return "a table"
	}
}

// show is v for an error, in quotes and not longer than a line bears.
func show(v any) string {
	s, ok := v.(string)
	if !ok {
		return fmt.Sprint(v)
	}
	const most = 60
	if r := []rune(s); len(r) > most {
		s = string(r[:most]) + "…"
	}
	return quote(s)
}

// quote writes s as a TOML string. Go's own quoting is not TOML's for control
// characters, but those are in no valid value.
func quote(s string) string { return strconv.Quote(s) }

func quoteList(list []string) string {
	quoted := make([]string, len(list))
	for i, s := range list {
		quoted[i] = quote(s)
	}
	return "[" + strings.Join(quoted, ", ") + "]"
}
