package db

import (
	"context"
	"errors"
	"fmt"
)

// Readers are a store's connections for reading, those that nobody uses. Make it
// with room for as many as there are to be.
type Readers chan *Conn

// Open connects them. Each may keep so many KiB of the file in memory.
func (r Readers) Open(dsn string, cacheKiB int) error {
	for range cap(r) {
		c, err := Connect(dsn, "PRAGMA busy_timeout=5000", "PRAGMA query_only=1", fmt.Sprintf("PRAGMA cache_size=-%d", cacheKiB))
		if err != nil {
			return err
		}
		r <- c
	}
	return nil
}

// Read runs f with one of them, in a transaction, so that all it reads is of one
// moment.
func (r Readers) Read(ctx context.Context, f func(c *Conn) error) error {
	if err := ctx.Err(); err != nil {
		return err
	}
	select {
	case c := <-r:
		defer func() { r <- c }()
		if _, err := c.Exec("BEGIN"); err != nil {
			return err
		}
		err := f(c)
		_, end := c.Exec("COMMIT")
		return errors.Join(err, end)
	case <-ctx.Done():
		return ctx.Err()
	}
}

// Rest gives back the memory of those that nobody uses.
func (r Readers) Rest() error {
	var errs []error
	for range cap(r) {
		select {
		case c := <-r: // the one that was not used for longest
			errs = append(errs, c.Rest())
			r <- c
		default:
		}
	}
	return errors.Join(errs...)
}

// Close closes those that nobody uses: all, when no call is under way.
func (r Readers) Close() error {
	var errs []error
	for len(r) > 0 {
		errs = append(errs, (<-r).Close())
	}
	return errors.Join(errs...)
}
