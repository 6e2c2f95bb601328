package mail

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/smtp2rest/smtp2rest/internal/settings"
	"github.com/smtp2rest/smtp2rest/relay"
	"github.com/smtp2rest/smtp2rest/relay/mail/mime"
)

// Target is where in a payload a value goes: a text ("tag"), a list of texts ("tags[]"),
// or a text in an object ("metadata.team").
type Target struct {
	Name string // of the field
	Key  string // in the object; "": the field is no object
	List bool
}

// ParseTarget reads a Target. Its error says what to write instead.
func ParseTarget(s string) (Target, error) {
	const want = `write a field as "tag", a list as "tags[]", or a field of an object as "metadata.team"`
	var t Target
	t.Name, t.List = strings.CutSuffix(s, "[]")
	name, key, object := strings.Cut(t.Name, ".")
	t.Name, t.Key = name, key
	if !plainName(t.Name) || object && (t.List || !plainName(t.Key)) {
		return Target{}, errors.New(want)
	}
	if slices.ContainsFunc([]string{"to", "cc", "bcc", "recipients"}, func(r string) bool { return strings.EqualFold(r, t.Name) || strings.EqualFold(r, t.Key) }) {
		return Target{}, errors.New("the envelope alone decides who gets a mail; write another field")
	}
	return t, nil
}

// String returns the target as ParseTarget reads it.
func (t Target) String() string {
	switch {
	case t.List:
		return t.Name + "[]"
	case t.Key != "":
		return t.Name + "." + t.Key
	}
	return t.Name
}

const maxTargetName = 64

func plainName(s string) bool {
	return s != "" && len(s) <= maxTargetName && !strings.ContainsFunc(s, func(r rune) bool {
		return r != '_' && r != '-' && (r < '0' || r > '9') && (r < 'A' || r > 'Z') && (r < 'a' || r > 'z')
	})
}

// CheckSource refuses a header whose value must not go into a field: it has a field of its
// own, names recipients, or is about the form of the body and its way here.
func CheckSource(name string) error {
	lower := strings.ToLower(name)
	switch lower {
	case "to", "cc", "bcc", "resent-to", "resent-cc", "resent-bcc", "x-bcc", "x-original-to", "x-envelope-to", "x-rcpt-to", "apparently-to":
		return fmt.Errorf("%s names recipients, and the envelope alone decides who gets a mail", name)
	case "from", "subject", "reply-to":
		return fmt.Errorf("%s has a field of its own", name)
	case "mime-version", "received", "return-path", "dkim-signature":
		return fmt.Errorf("%s is about this copy of the mail, and means nothing in another", name)
	}
	if strings.HasPrefix(lower, "content-") {
		return fmt.Errorf("%s is about this copy of the mail, and means nothing in another", name)
	}
	if !plainName(name) {
		return errors.New(`write the name of a header, as in "X-Tag"`)
	}
	return nil
}

// Source says into which field the values of a header go.
type Source struct {
	Header string
	Target Target
}

// Value is a value that an operator sets, whatever the mail says.
type Value struct {
	Target Target
	Text   string
}

// Values reads values by the fields that have them. relay/config has checked them.
func Values(pairs settings.Pairs) (values []Value) {
	for _, one := range pairs {
		if t, err := ParseTarget(one.Name); err == nil {
			values = append(values, Value{t, one.Text})
		}
	}
	return values
}

// FormatValues writes values for relay.Client.Fields.
func FormatValues(values []Value) string {
	lines := make([]string, len(values))
	for i, v := range values {
		lines[i] = v.Target.String() + "=" + v.Text
	}
	return strings.Join(lines, "\n")
}

// parseValues reads what FormatValues wrote.
func parseValues(text string) (values []Value) {
	for line := range strings.SplitSeq(text, "\n") {
		name, value, ok := strings.Cut(line, "=")
		if t, err := ParseTarget(name); ok && err == nil {
			values = append(values, Value{t, value})
		}
	}
	return values
}

// valuesOf returns the values for the mail of a client. Those of its user count before
// those of its listener.
func (o Options) valuesOf(c relay.Client) []Value {
	own := o.UserValues[c.User]
	if c.Fields == "" {
		return own
	}
	return append(slices.Clone(own), parseValues(c.Fields)...)
}

// PayloadField is a field of a payload besides the documented ones. Its values are one text, a
// list of texts, or an object; only an object's have names.
type PayloadField struct {
	Name   string
	Kind   FieldKind
	Values []Header
}

// FieldKind is what the value of a PayloadField is.
type FieldKind int

// The kinds of fields.
const (
	TextField FieldKind = iota
	ListField
	ObjectField
)

const (
	// MaxFieldValue bounds a value, in bytes. A longer one is left out: half an address is none.
	MaxFieldValue = 2048
	// MaxFieldValues bounds the values that the headers of a mail give.
	MaxFieldValues = 50
)

// set puts a value into its field. It returns false if there is a value already where
// only one can be.
func (m *Mail) set(t Target, headerField, header, value string) bool {
	if t.Name == headerField {
		name := cmp.Or(t.Key, header)
		if slices.ContainsFunc(m.Headers, func(h Header) bool { return strings.EqualFold(h.Name, name) }) {
			return false
		}
		m.Headers = append(m.Headers, Header{name, value})
		return true
	}
	kind := TextField
	switch {
	case t.List:
		kind = ListField
	case t.Key != "":
		kind = ObjectField
	}
	i := slices.IndexFunc(m.Fields, func(f PayloadField) bool { return f.Name == t.Name })
	if i < 0 {
		m.Fields, i = append(m.Fields, PayloadField{Name: t.Name, Kind: kind}), len(m.Fields)
	}
	f := &m.Fields[i]
	if f.Kind != kind || kind == TextField && len(f.Values) > 0 || kind == ObjectField && slices.ContainsFunc(f.Values, func(h Header) bool { return h.Name == t.Key }) {
		return false
	}
	f.Values = append(f.Values, Header{t.Key, value})
	return true
}

// source returns where the values of a header go, if that is set.
func (c *composer) source(name []byte) (Source, bool) {
	for _, s := range c.options.Sources {
		if len(s.Header) == len(name) && strings.EqualFold(s.Header, string(name)) {
			return s, true
		}
	}
	return Source{}, false
}

// field puts the value of a header into its field. It returns why it was left out, or "".
func (c *composer) field(s Source, f mime.Field) string {
	value := c.decoder.Words(f.Value, c.charset) // one line, without control characters
	switch {
	case value == "":
		return "" // it says nothing
	case len(value) > MaxFieldValue:
		return fmt.Sprintf("longer than %d bytes", MaxFieldValue)
	case c.fields >= MaxFieldValues:
		return fmt.Sprintf("more than %d", MaxFieldValues)
	case !c.mail.set(s.Target, c.options.HeaderField, s.Header, value):
		return s.Target.String() + " has a value already"
	}
	c.fields++
	return ""
}
