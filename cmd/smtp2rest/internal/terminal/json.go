package terminal

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"unicode"
	"unicode/utf16"

	"github.com/spf13/pflag"

	"github.com/smtp2rest/smtp2rest/relay/config"
)

// DeclareJSON declares --json. A command that cannot have it says why with NoJSON.
func DeclareJSON(fs *pflag.FlagSet) *bool {
	return fs.Bool("json", false, "print JSON, for scripts; errors too")
}

// Failure is the JSON that a command with --json prints on standard error if it fails.
type Failure struct {
	Error    string    `json:"error"`
	Exit     int       `json:"exit"`
	Problems []Problem `json:"problems,omitempty"` // of the configuration
}

// Problem is one fault of a configuration.
type Problem struct {
	Setting string `json:"setting,omitempty"`
	File    string `json:"file,omitempty"`
	Line    int    `json:"line,omitempty"`
	Text    string `json:"text"` // what was found, and what is allowed
}

// ProblemsOf converts the faults of a configuration.
func ProblemsOf(list config.Errors) []Problem {
	out := make([]Problem, len(list))
	for i, p := range list {
		out[i] = Problem{Setting: p.Path, File: p.File, Line: p.Line, Text: p.Text}
	}
	return out
}

// OrEmpty returns a list that is never nil, so that an empty one is [] in JSON and not null.
func OrEmpty[T any](list []T) []T { return append([]T{}, list...) }

// PrintJSON prints v as one line of JSON.
func PrintJSON(w io.Writer, v any) error {
	line, err := PlainJSON(v)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintln(w, line)
	return err
}

// PlainJSON returns v as one line of JSON that is safe to show on a terminal.
// encoding/json does not escape control characters outside ASCII. JSON has them only inside
// strings, so all of them can be escaped.
func PlainJSON(v any) (string, error) {
	var raw strings.Builder
	enc := json.NewEncoder(&raw)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(v); err != nil {
		return "", err
	}
	var b strings.Builder
	for _, r := range strings.TrimSuffix(raw.String(), "\n") {
		switch {
		case unicode.IsPrint(r):
			b.WriteRune(r)
		case r > 0xffff:
			high, low := utf16.EncodeRune(r)
			fmt.Fprintf(&b, `\u%04x\u%04x`, high, low)
		default:
			fmt.Fprintf(&b, `\u%04x`, r)
		}
	}
	return b.String(), nil
}

// PrettyJSON returns a JSON object with one field on each line, in their order.
func PrettyJSON(r io.Reader) (string, error) {
	dec := json.NewDecoder(r)
	if _, err := dec.Token(); err != nil {
		return "", err
	}
	var fields []string
	for dec.More() {
		name, err := dec.Token()
		if err != nil {
			return "", err
		}
		var value json.RawMessage
		if err := dec.Decode(&value); err != nil {
			return "", err
		}
		fields = append(fields, fmt.Sprintf("  %q: %s", name, value))
	}
	return "{\n" + strings.Join(fields, ",\n") + "\n}", nil
}
