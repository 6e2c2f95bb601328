// Package db is what the stores that keep their data in SQLite share: a
// connection with its prepared statements, and how a file is made, known again
// and brought up to date. What is in a file is its store's own.
package db

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"iter"
	"maps"
	"runtime"
	"syscall"

	driversqlite "modernc.org/sqlite"
	lib "modernc.org/sqlite/lib"
)

// Conn is one SQLite connection with its prepared statements. It is for one
// goroutine at a time. The driver is used without database/sql: its pool,
// conversions and locks cost more than the statements themselves here.
type Conn struct {
	c     driver.Conn
	stmts map[string]driver.Stmt // by their text, maxStatements at most
	args  []driver.NamedValue    // reused by each call
}

// maxStatements bounds how many statements stay prepared. Most texts are constants, some
// hundred; those that depend on what somebody asks for are not. One that came too late is
// closed after each use.
const maxStatements = 300

// Connect opens a connection and runs setup on it.
func Connect(dsn string, setup ...string) (*Conn, error) {
	connector, err := driversqlite.NewConnector(dsn)
	if err != nil {
		return nil, err
	}
	dc, err := connector.Connect(context.Background())
	if err != nil {
		return nil, err
	}
	c := &Conn{c: dc, stmts: map[string]driver.Stmt{}}
	if runtime.GOOS == "darwin" { // whose fsync(2) ends at the disk's cache; os.File.Sync goes further by itself
		setup = append([]string{"PRAGMA fullfsync=ON"}, setup...)
	}
	for _, q := range setup {
		if err := c.Script(q); err != nil {
			return nil, errors.Join(err, c.Close())
		}
	}
	return c, nil
}

// Close closes the connection and what was prepared on it.
func (c *Conn) Close() error {
	var errs []error
	for _, s := range c.stmts {
		errs = append(errs, s.Close())
	}
	return errors.Join(append(errs, c.c.Close())...)
}

// Script runs statements that are not worth keeping prepared.
func (c *Conn) Script(q string) error {
	_, err := c.c.(driver.ExecerContext).ExecContext(context.Background(), q, nil)
	return err
}

// Rest gives back the memory in which the connection keeps pages of the file. It
// is for a connection that is not used for a while; it reads them again later.
func (c *Conn) Rest() error { return c.Script("PRAGMA shrink_memory") }

// Statements are the texts of all that was prepared, for tests that ask SQLite
// how it does them.
func (c *Conn) Statements() iter.Seq[string] { return maps.Keys(c.stmts) }

func (c *Conn) prepare(q string, args []any) (driver.Stmt, []driver.NamedValue, error) {
	s, ok := c.stmts[q]
	if !ok {
		var err error
		if s, err = c.c.Prepare(q); err != nil {
			return nil, nil, fmt.Errorf("%w in %q", err, q)
		}
		if len(c.stmts) < maxStatements {
			c.stmts[q] = s
		}
	}
	c.args = c.args[:0]
	for i, a := range args {
		switch v := a.(type) {
		case int:
			a = int64(v)
		case bool:
			a = int64(0)
			if v {
				a = int64(1)
			}
		}
		c.args = append(c.args, driver.NamedValue{Ordinal: i + 1, Value: a})
	}
	return s, c.args, nil
}

// used closes a statement that is not kept.
func (c *Conn) used(q string, s driver.Stmt) error {
	if _, kept := c.stmts[q]; kept {
		return nil
	}
	return s.Close()
}

// Exec runs a statement that returns no rows and says how many it changed.
func (c *Conn) Exec(q string, args ...any) (n int64, err error) {
	s, values, err := c.prepare(q, args)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, c.used(q, s)) }()
	r, err := s.(driver.StmtExecContext).ExecContext(context.Background(), values)
	if err != nil {
		return 0, err
	}
	return r.RowsAffected()
}

// Row is what a query returned, one value per column.
type Row []driver.Value

// The columns; the zero value where it is of another type.
func (r Row) Int(i int) int64   { n, _ := r[i].(int64); return n }
func (r Row) Bool(i int) bool   { return r.Int(i) != 0 }
func (r Row) Text(i int) string { s, _ := r[i].(string); return s }
func (r Row) Blob(i int) []byte { b, _ := r[i].([]byte); return b }

// Each calls f for every row; r is only good until f returns. f must not use
// the connection for the same statement.
func (c *Conn) Each(f func(r Row) error, q string, args ...any) (err error) {
	s, values, err := c.prepare(q, args)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.used(q, s)) }()
	rows, err := s.(driver.StmtQueryContext).QueryContext(context.Background(), values)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	r := make(Row, len(rows.Columns()))
	for {
		switch err := rows.Next(r); {
		case errors.Is(err, io.EOF):
			return nil
		case err != nil:
			return err
		}
		if err := f(r); err != nil {
			return err
		}
	}
}

// One returns the first row, or nil when there is none.
func (c *Conn) One(q string, args ...any) (Row, error) {
	var first Row
	err := c.Each(func(r Row) error {
		if first == nil {
			first = append(Row(nil), r...)
		}
		return nil
	}, q, args...)
	return first, err
}

// Transaction runs f in one that only reads, so that all it reads is of one moment.
func (c *Conn) Transaction(f func(c *Conn) error) error {
	if _, err := c.Exec("BEGIN"); err != nil {
		return err
	}
	err := f(c)
	_, end := c.Exec("COMMIT")
	return errors.Join(err, end)
}

// Number returns the first column of the first row; 0 when there is none.
func (c *Conn) Number(q string, args ...any) (int64, error) {
	r, err := c.One(q, args...)
	if err != nil || r == nil {
		return 0, err
	}
	return r.Int(0), nil
}

// Code is SQLite's primary result code of an error, 0 for other errors.
func Code(err error) int {
	var e *driversqlite.Error
	if !errors.As(err, &e) {
		return 0
	}
	return e.Code() & 0xff
}

// IsDiskFull: there was no room for it.
func IsDiskFull(err error) bool { return Code(err) == lib.SQLITE_FULL }

// IsIO: the storage failed, so that what the connection believes about its
// files can no longer be trusted.
func IsIO(err error) bool {
	switch Code(err) {
	case lib.SQLITE_IOERR, lib.SQLITE_CANTOPEN, lib.SQLITE_PROTOCOL:
		return true
	}
	return false
}

// IsCorrupt: the file is not what SQLite wrote.
func IsCorrupt(err error) bool {
	c := Code(err)
	return c == lib.SQLITE_CORRUPT || c == lib.SQLITE_NOTADB
}

// NoSpace makes an error of SQLite's that the disk is full one of the operating
// system's as well: syscall.ENOSPC. Others stay as they are.
func NoSpace(err error) error {
	if !IsDiskFull(err) {
		return err
	}
	return fmt.Errorf("%w: %w", syscall.ENOSPC, err)
}
