package settings

import (
	"fmt"
	"io/fs"
	"log/slog"
	"math"
	"net/netip"
	"reflect"
	"strconv"
	"strings"
	"time"
	"unicode"
)

// builtIn returns the Value of a type that settings of any package may have, or nil.
func builtIn(field reflect.Value, tag reflect.StructTag) (Value, error) {
	switch p := field.Addr().Interface().(type) {
	case *bool:
		return flag{p}, nil
	case *int:
		least, most, err := bounds(tag, ParseSize, math.MaxInt64)
		return count{p, least, most}, err
	case *int64:
		least, most, err := bounds(tag, ParseSize, math.MaxInt64)
		return size{p, least, most}, err
	case *float64:
		least, most, err := bounds(tag, func(s string) (float64, error) { return strconv.ParseFloat(s, 64) }, math.MaxFloat64)
		return number{p, least, most}, err
	case *time.Duration:
		least, most, err := bounds(tag, ParseDuration, math.MaxInt64)
		return duration{p, least, most}, err
	case *[]netip.Prefix:
		return networks{p}, nil
	case *slog.Level:
		return level{p}, nil
	case *Pairs:
		return pairs{p}, nil
	case *fs.FileMode:
		return mode{p}, nil
	}
	if field.Kind() == reflect.String {
		return text{field, strings.Fields(tag.Get("words"))}, nil
	}
	return nil, nil
}

// bounds returns the range of a tag. Without one it is from zero to most.
func bounds[T any](tag reflect.StructTag, parse func(string) (T, error), most T) (from, to T, err error) {
	text, there := tag.Lookup("range")
	if !there {
		return from, most, nil
	}
	least, last, _ := strings.Cut(text, "..")
	from, err = parse(least)
	if err == nil {
		to, err = parse(last)
	}
	return from, to, err
}

// text is a string, or a type made of one. It is any text on one line, or one of some
// words.
type text struct {
	p     reflect.Value
	words []string
}

func (t text) Set(v any) error {
	if len(t.words) > 0 {
		s, err := OneOf(v, t.words)
		if err == nil {
			t.p.SetString(s)
		}
		return err
	}
	s, ok := v.(string)
	if !ok {
		return WrongType(v, `write text in quotes`)
	}
	if err := CheckText(s); err != nil {
		return err
	}
	t.p.SetString(s)
	return nil
}

func (t text) Text() string { return Quote(t.p.String()) }

// CheckText accepts text on one line.
func CheckText(s string) error {
	if strings.ContainsFunc(s, unicode.IsControl) {
		return fmt.Errorf("found %s, with a control character in it; write it on one line", Show(s))
	}
	return nil
}

type level struct{ p *slog.Level }

func (l level) Set(v any) error {
	s, err := OneOf(v, []string{"debug", "info", "warn", "error"})
	if err != nil {
		return err
	}
	return l.p.UnmarshalText([]byte(s))
}

func (l level) Text() string { return Quote(strings.ToLower(l.p.String())) }

// OneOf returns v if it is one of the words.
func OneOf(v any, words []string) (string, error) {
	quoted := make([]string, len(words))
	for i, w := range words {
		quoted[i] = Quote(w)
	}
	allowed := quoted[len(quoted)-1]
	if len(quoted) > 1 {
		allowed = strings.Join(quoted[:len(quoted)-1], ", ") + " or " + allowed
	}
	s, ok := v.(string)
	if !ok {
		return "", WrongType(v, "write "+allowed)
	}
	for _, w := range words {
		if s == w {
			return s, nil
		}
	}
	if near := Nearest(s, words); near != "" {
		return "", fmt.Errorf("found %s; did you mean %s? allowed is %s", Show(s), Quote(near), allowed)
	}
	return "", fmt.Errorf("found %s; allowed is %s", Show(s), allowed)
}

type flag struct{ p *bool }

func (f flag) Set(v any) error {
	b, ok := v.(bool)
	if !ok {
		return WrongType(v, "write true or false, without quotes")
	}
	*f.p = b
	return nil
}

func (f flag) Text() string { return strconv.FormatBool(*f.p) }

type count struct {
	p        *int
	min, max int64
}

func (c count) Set(v any) error {
	n, ok := v.(int64)
	if !ok {
		return WrongType(v, fmt.Sprintf("write a whole number without quotes, from %d to %d", c.min, c.max))
	}
	if n < c.min || n > c.max {
		return fmt.Errorf("found %d; allowed is from %d to %d", n, c.min, c.max)
	}
	*c.p = int(n)
	return nil
}

func (c count) Text() string { return strconv.Itoa(*c.p) }

type number struct {
	p        *float64
	min, max float64
}

func (r number) Set(v any) error {
	var f float64
	switch n := v.(type) {
	case float64:
		f = n
	case int64:
		f = float64(n)
	default:
		return WrongType(v, fmt.Sprintf("write a number without quotes, from %v to %v", r.min, r.max))
	}
	// TOML has nan and inf. A comparison with nan is always false.
	if math.IsNaN(f) || f < r.min || f > r.max {
		return fmt.Errorf("found %v; allowed is from %v to %v", f, r.min, r.max)
	}
	*r.p = f
	return nil
}

func (r number) Text() string { return strconv.FormatFloat(*r.p, 'f', -1, 64) }

type duration struct {
	p        *time.Duration
	min, max time.Duration
}

// Set refuses numbers, because a bare 5 has no unit. Zero needs none.
func (t duration) Set(v any) error {
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
		return WrongType(v, `write a time in quotes, as in "10s"`)
	}
	if d < t.min || d > t.max {
		return fmt.Errorf("found %s; allowed is from %s to %s", Quote(FormatDuration(d)), Quote(FormatDuration(t.min)), Quote(FormatDuration(t.max)))
	}
	*t.p = d
	return nil
}

func (t duration) Text() string { return Quote(FormatDuration(*t.p)) }

type size struct {
	p        *int64
	min, max int64
}

func (z size) Set(v any) error {
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
		return WrongType(v, `write a size in quotes, as in "10MiB", or a number of bytes`)
	}
	if n < z.min || n > z.max {
		return fmt.Errorf("found %s; allowed is from %s to %s", Show(v), Quote(FormatSize(z.min)), Quote(FormatSize(z.max)))
	}
	*z.p = n
	return nil
}

func (z size) Text() string { return Quote(FormatSize(*z.p)) }

type networks struct{ p *[]netip.Prefix }

func (n networks) Set(v any) error {
	list, err := TextList(v, `write a list of networks, as in ["10.1.0.0/16"]`)
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

func (n networks) Text() string {
	list := make([]string, len(*n.p))
	for i, p := range *n.p {
		list[i] = p.String()
	}
	return QuoteList(list)
}

func TextList(v any, want string) ([]string, error) {
	list, ok := v.([]any)
	if !ok {
		return nil, WrongType(v, want)
	}
	out := make([]string, len(list))
	for i, item := range list {
		if out[i], ok = item.(string); !ok {
			return nil, fmt.Errorf("item %d of the list is %s; %s", i+1, KindOf(item), want)
		}
		for _, earlier := range out[:i] {
			if strings.EqualFold(earlier, out[i]) {
				return nil, fmt.Errorf("found %s twice; once is enough", Show(out[i]))
			}
		}
	}
	return out, nil
}

func WrongType(v any, want string) error {
	return fmt.Errorf("found %s; %s", KindOf(v), want)
}

// KindOf says what kind of value TOML gave, and shows it if it is short.
func KindOf(v any) string {
	switch v := v.(type) {
	case string:
		return "the text " + Show(v)
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

// Show returns v for an error message, in quotes and cut to one line.
func Show(v any) string {
	s, ok := v.(string)
	if !ok {
		return fmt.Sprint(v)
	}
	const most = 60
	if r := []rune(s); len(r) > most {
		s = string(r[:most]) + "…"
	}
	return Quote(s)
}

// Quote returns s as a TOML string. Go quotes control characters in another way than
// TOML, but no valid value has them.
func Quote(s string) string { return strconv.Quote(s) }

func QuoteList(list []string) string {
	quoted := make([]string, len(list))
	for i, s := range list {
		quoted[i] = Quote(s)
	}
	return "[" + strings.Join(quoted, ", ") + "]"
}

type mode struct{ p *fs.FileMode }

func (m mode) Set(v any) error {
	const want = `write a mode in quotes, as in "0660"`
	s, ok := v.(string)
	if !ok {
		return WrongType(v, want)
	}
	n, err := strconv.ParseUint(s, 8, 32)
	if err != nil || n > 0o777 || n&0o200 == 0 || len(s) > 4 {
		return fmt.Errorf("found %s; %s, with which its owner may write", Show(s), want)
	}
	*m.p = fs.FileMode(n)
	return nil
}

func (m mode) Text() string { return Quote(fmt.Sprintf("%04o", *m.p)) }
