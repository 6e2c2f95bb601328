package terminal

import (
	"encoding/json"
	"fmt"
	"io"
	"iter"
	"strings"
	"unicode"
	"unicode/utf16"

	"github.com/spf13/pflag"

	"github.com/smtp2rest/smtp2rest/relay/config"
)

// DeclareJSON declares --json. A command that cannot have it says why in noJSON.
func DeclareJSON(fs *pflag.FlagSet, to *bool) {
	fs.BoolVar(to, "json", false, "print JSON, for scripts; errors too")
}

// Failure is how a command that was asked for JSON tells on standard error what
// went wrong. What it has to say besides is on standard output, or nothing is.
type Failure struct {
	Error    string    `json:"error"`
	Exit     int       `json:"exit"`
	Problems []Problem `json:"problems,omitempty"` // with the configuration
}

// Problem is one thing that is wrong with a configuration.
type Problem struct {
	Setting string `json:"setting,omitempty"`
	File    string `json:"file,omitempty"`
	Line    int    `json:"line,omitempty"`
	Text    string `json:"text"` // what was found, and what is allowed
}

func ProblemsOf(list config.Errors) []Problem {
	out := make([]Problem, len(list))
	for i, p := range list {
		out[i] = Problem{Setting: p.Path, File: p.File, Line: p.Line, Text: p.Text}
	}
	return out
}

// OrEmpty is list as JSON's [] rather than null.
func OrEmpty[T any](list []T) []T { return append([]T{}, list...) }

func PrintJSON(w io.Writer, v any) error {
	line, err := PlainJSON(v)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintln(w, line)
	return err
}

// PlainJSON is v in one line in which nothing can reach a terminal either.
// encoding/json leaves control characters beyond ASCII as they are; outside of
// strings JSON has none, so that all of them can be escaped.
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

// PrintJSONList prints an array piece by piece, of limit pieces at most, 0 for
// all. An array that an error cut short has no end, so that no script takes it
// for the whole.
func PrintJSONList[T any](w io.Writer, all iter.Seq2[T, error], limit int) error {
	n, between := 0, "[\n"
	for e, err := range all {
		if err != nil {
			return err
		}
		if limit > 0 && n == limit {
			break
		}
		line, err := PlainJSON(e)
		if err != nil {
			return err
		}
		if _, err := fmt.Fprint(w, between, line); err != nil {
			return err
		}
		n, between = n+1, ",\n"
	}
	end := "\n]\n"
	if n == 0 {
		end = "[]\n"
	}
	_, err := fmt.Fprint(w, end)
	return err
}

// PrettyJSON lays a JSON object out with one field a line, in the order in which
// it was sent.
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
