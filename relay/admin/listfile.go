package admin

import (
	"bufio"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"strings"
	"time"
)

// WriteSuppressions writes a list as CSV with a header, which ReadSuppressions reads.
func WriteSuppressions(w io.Writer, entries iter.Seq2[Suppression, error]) error {
	table := csv.NewWriter(w)
	if err := table.Write([]string{"address", "reason", "source", "since", "expires", "event", "detail", "note"}); err != nil {
		return err
	}
	for e, err := range entries {
		if err == nil {
			err = table.Write([]string{e.Address, e.Reason, e.Source, stamp(e.Since), stamp(e.Expires), e.Event, e.Detail, e.Note})
		}
		if err != nil {
			return err
		}
	}
	table.Flush()
	return table.Error()
}

func stamp(at time.Time) string {
	if at.IsZero() {
		return ""
	}
	return at.UTC().Format(time.RFC3339Nano)
}

// ReadSuppressions reads a list as CSV, as lines of JSON or as an address on each line.
// It returns a function that returns the next entry and its line, or io.EOF. After an
// error about one line it goes on with the next one. JSON begins with a brace.
func ReadSuppressions(r io.Reader) func() (Suppression, int, error) {
	in := bufio.NewReader(r)
	if bom, err := in.Peek(3); err == nil && string(bom) == "\ufeff" { // as spreadsheets write
		_, _ = in.Discard(3)
	}
	for {
		first, err := in.Peek(1)
		switch {
		case err == nil && strings.ContainsRune(" \t\r\n", rune(first[0])):
			_, _ = in.Discard(1)
			continue
		case err == nil && first[0] == '{':
			return jsonLines(in)
		}
		return csvLines(in)
	}
}

func jsonLines(in *bufio.Reader) func() (Suppression, int, error) {
	line := 0
	return func() (e Suppression, _ int, err error) {
		for {
			line++
			text, err := in.ReadString('\n')
			if strings.TrimSpace(text) == "" {
				if err != nil {
					return e, line, err
				}
				continue
			}
			if jerr := json.Unmarshal([]byte(text), &e); jerr != nil {
				return e, line, fmt.Errorf("it is no JSON object of a suppression: %w", jerr)
			}
			return e, line, nil
		}
	}
}

func csvLines(in *bufio.Reader) func() (Suppression, int, error) {
	table := csv.NewReader(in)
	table.FieldsPerRecord = -1
	table.TrimLeadingSpace = true
	columns := []string{"address"}
	first := true
	return func() (Suppression, int, error) {
		row, err := table.Read()
		if first && err == nil {
			first = false
			if names, ok := columnsOf(row); ok {
				columns = names
				row, err = table.Read()
			}
		}
		if err != nil {
			return Suppression{}, lineOf(err), err
		}
		line, _ := table.FieldPos(0)
		e, err := rowEntry(columns, row)
		return e, line, err
	}
}

func lineOf(err error) int {
	if p, ok := errors.AsType[*csv.ParseError](err); ok {
		return p.Line
	}
	return 0
}

// columnsOf returns the columns that the first row names. It is no header unless it
// names the address.
func columnsOf(row []string) ([]string, bool) {
	names, found := make([]string, len(row)), false
	for i, cell := range row {
		names[i] = strings.ToLower(strings.TrimSpace(cell))
		if names[i] == "email" {
			names[i] = "address"
		}
		found = found || names[i] == "address"
	}
	return names, found
}

func rowEntry(columns, row []string) (e Suppression, err error) {
	text := map[string]*string{"address": &e.Address, "reason": &e.Reason, "source": &e.Source, "event": &e.Event, "detail": &e.Detail, "note": &e.Note}
	times := map[string]*time.Time{"since": &e.Since, "expires": &e.Expires}
	for i, cell := range row[:min(len(row), len(columns))] {
		cell = strings.TrimSpace(cell)
		if to := text[columns[i]]; to != nil {
			*to = cell
		} else if to := times[columns[i]]; to != nil {
			if *to, err = parseStamp(cell); err != nil {
				return e, fmt.Errorf("%s: %w", columns[i], err)
			}
		}
	}
	return e, nil
}

func parseStamp(s string) (time.Time, error) {
	if s == "" {
		return time.Time{}, nil
	}
	for _, layout := range []string{time.RFC3339Nano, time.DateOnly, "2006-01-02 15:04:05"} {
		if at, err := time.Parse(layout, s); err == nil {
			return at.UTC(), nil
		}
	}
	return time.Time{}, fmt.Errorf("%q is no time; write it like 2026-05-13T10:24:31Z", s)
}
