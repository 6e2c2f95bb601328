package config

import (
	"fmt"
	"slices"
	"strings"
)

// Problem is an error in a configuration.
type Problem struct {
	File string // "" when the problem is not in the file
	Line int    // 0 when not known
	Path string // setting or variable; "" for a problem with the whole file
	Text string // what was found, and what to write instead
}

// String returns the problem in one line.
func (p Problem) String() string {
	var b strings.Builder
	if p.File != "" {
		b.WriteString(p.File)
		if p.Line > 0 {
			fmt.Fprintf(&b, ":%d", p.Line)
		}
		b.WriteString(": ")
	}
	if p.Path != "" {
		b.WriteString(p.Path + ": ")
	}
	return b.String() + p.Text
}

// Errors are all problems of a configuration. There is at least one. Those in the
// file come first, in its order. They never show a secret.
type Errors []Problem

// Error has one line for each problem.
func (e Errors) Error() string {
	lines := make([]string, len(e))
	for i, p := range e {
		lines[i] = p.String()
	}
	return strings.Join(lines, "\n")
}

// sorted puts problems with a line first, by line, and keeps the order of the rest.
func (e Errors) sorted() Errors {
	slices.SortStableFunc(e, func(a, b Problem) int {
		switch {
		case a.Line == b.Line:
			return 0
		case a.Line == 0:
			return 1
		case b.Line == 0:
			return -1
		default:
			return a.Line - b.Line
		}
	})
	return e
}
