package sqlite

import (
	"context"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"

	driversqlite "modernc.org/sqlite"
	lib "modernc.org/sqlite/lib"
)

// conn is one SQLite connection with its prepared statements. It is for one
// goroutine at a time. The driver is used without database/sql: its pool,
// conversions and locks cost more than the statements themselves here.
type conn struct {
	c     driver.Conn
	stmts map[string]driver.Stmt // by their text: a closed set of constants
	args  []driver.NamedValue    // reused by each call
}

// connect opens a connection and runs setup on it.
func connect(dsn string, setup ...string) (*conn, error) {
	connector, err := driversqlite.NewConnector(dsn)
	if err != nil {
		return nil, err
	}
	dc, err := connector.Connect(context.Background())
	if err != nil {
		return nil, err
	}
	c := &conn{c: dc, stmts: map[string]driver.Stmt{}}
	for _, q := range setup {
		if err := c.script(q); err != nil {
			return nil, errors.Join(err, c.close())
		}
	}
	return c, nil
}

func (c *conn) close() error {
	var errs []error
	for _, s := range c.stmts {
		errs = append(errs, s.Close())
	}
	return errors.Join(append(errs, c.c.Close())...)
}

// script runs statements that are not worth keeping prepared.
func (c *conn) script(q string) error {
	_, err := c.c.(driver.ExecerContext).ExecContext(context.Background(), q, nil)
	return err
}

func (c *conn) prepare(q string, args []any) (driver.Stmt, []driver.NamedValue, error) {
	s, ok := c.stmts[q]
	if !ok {
		var err error
		if s, err = c.c.Prepare(q); err != nil {
			return nil, nil, fmt.Errorf("%w in %q", err, q)
		}
		c.stmts[q] = s
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

// exec runs a statement that returns no rows and says how many it changed.
func (c *conn) exec(q string, args ...any) (int64, error) {
	s, values, err := c.prepare(q, args)
	if err != nil {
		return 0, err
	}
	r, err := s.(driver.StmtExecContext).ExecContext(context.Background(), values)
	if err != nil {
		return 0, err
	}
	return r.RowsAffected()
}

// row is what a query returned, one value per column.
type row []driver.Value

func (r row) int(i int) int64   { n, _ := r[i].(int64); return n }
func (r row) bool(i int) bool   { return r.int(i) != 0 }
func (r row) text(i int) string { s, _ := r[i].(string); return s }
func (r row) blob(i int) []byte { b, _ := r[i].([]byte); return b }

// each calls f for every row; r is only good until f returns. f must not use
// the connection for the same statement.
func (c *conn) each(f func(r row) error, q string, args ...any) (err error) {
	s, values, err := c.prepare(q, args)
	if err != nil {
		return err
	}
	rows, err := s.(driver.StmtQueryContext).QueryContext(context.Background(), values)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, rows.Close()) }()
	r := make(row, len(rows.Columns()))
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

// one returns the first row, or nil when there is none.
func (c *conn) one(q string, args ...any) (row, error) {
	var first row
	err := c.each(func(r row) error {
		if first == nil {
			first = append(row(nil), r...)
		}
		return nil
	}, q, args...)
	return first, err
}

// number returns the first column of the first row; 0 when there is none.
func (c *conn) number(q string, args ...any) (int64, error) {
	r, err := c.one(q, args...)
	if err != nil || r == nil {
		return 0, err
	}
	return r.int(0), nil
}

// code is SQLite's primary result code of an error, 0 for other errors.
func code(err error) int {
	var e *driversqlite.Error
	if !errors.As(err, &e) {
		return 0
	}
	return e.Code() & 0xff
}

func isDiskFull(err error) bool { return code(err) == lib.SQLITE_FULL }

// isIO: the storage failed, so that what the connection believes about its
// files can no longer be trusted.
func isIO(err error) bool {
	switch code(err) {
	case lib.SQLITE_IOERR, lib.SQLITE_CANTOPEN, lib.SQLITE_PROTOCOL:
		return true
	}
	return false
}

func isCorrupt(err error) bool {
	c := code(err)
	return c == lib.SQLITE_CORRUPT || c == lib.SQLITE_NOTADB
}
