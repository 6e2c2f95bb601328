package main

import (
	"fmt"
	"io"
	"iter"
)

// printJSONList prints an array piece by piece, of limit pieces at most, 0 for
// all. An array that an error cut short has no end, so that no script takes it
// for the whole.
func printJSONList[T any](w io.Writer, all iter.Seq2[T, error], limit int) error {
	n, between := 0, "[\n"
	for e, err := range all {
		if err != nil {
			return err
		}
		if limit > 0 && n == limit {
			break
		}
		line, err := plainJSON(e)
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
