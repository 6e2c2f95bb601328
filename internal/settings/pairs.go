package settings

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Pair is a name and the text that it stands for.
type Pair struct{ Name, Text string }

// Pairs are a table of texts, by name.
type Pairs []Pair

// String returns them as TOML writes them.
func (p Pairs) String() string {
	list := make([]string, len(p))
	for i, one := range p {
		list[i] = Quote(one.Name) + " = " + Quote(one.Text)
	}
	if len(list) == 0 {
		return "{}"
	}
	return "{ " + strings.Join(list, ", ") + " }"
}

// ParsePairs returns the table that TOML gave. Names that differ only in case are one
// name. want says what to write.
func ParsePairs(v any, want string) (Pairs, error) {
	table, ok := v.(map[string]any)
	if !ok {
		return nil, WrongType(v, want)
	}
	var pairs Pairs
	seen := map[string]bool{}
	for _, name := range slices.Sorted(maps.Keys(table)) {
		text, ok := table[name].(string)
		if !ok {
			return nil, fmt.Errorf("%s: %w", Show(name), WrongType(table[name], want))
		}
		if seen[strings.ToLower(name)] {
			return nil, fmt.Errorf("found %s twice; once is enough", Show(name))
		}
		seen[strings.ToLower(name)] = true
		pairs = append(pairs, Pair{name, text})
	}
	return pairs, nil
}

type pairs struct{ p *Pairs }

func (t pairs) Set(v any) error {
	list, err := ParsePairs(v, `write a table of texts, as in { name = "text" }`)
	if err == nil {
		*t.p = list
	}
	return err
}

func (t pairs) Text() string { return t.p.String() }
