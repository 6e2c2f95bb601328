package postgres

import (
	"context"
	"crypto/rand"
	"errors"
	"time"

	"github.com/jackc/pgx/v5"
)

// accountsSchema has one row for each account at the provider. What is in it, relays
// write and read (relay/pace).
const accountsSchema = `
CREATE TABLE smtp2rest.accounts (
	name text COLLATE "C" PRIMARY KEY, -- '' is the default account
	version bigint NOT NULL, -- counts the changes
	state text NOT NULL
) WITH (fillfactor = 10, autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 500);
`

// Account is the row of one account. It implements pace.Ledger.
type Account struct {
	d       *DB
	name    string
	id      string // of this relay, so that it does not wake itself
	changed chan struct{}
}

// Account returns the row of an account. It is for the life of the DB.
func (d *DB) Account(name string) *Account {
	a := &Account{d: d, name: name, id: rand.Text(), changed: make(chan struct{}, 1)}
	wake := func() {
		select {
		case a.changed <- struct{}{}:
		default:
		}
	}
	d.Listen(a.topic(), func(from string) {
		if from != a.id {
			wake()
		}
	}, wake)
	return a
}

// topic is the account's own, because of what is told on one topic within a moment only the
// latest reaches the others.
func (a *Account) topic() string { return "account/" + a.name }

// Changed has a value when another relay told something, or may have.
func (a *Account) Changed() <-chan struct{} { return a.changed }

// Update replaces the row's text by what change makes of it. No lock is held while
// change runs, or while an answer is on its way: if the row has changed since it was
// read, it is read and changed again.
func (a *Account) Update(ctx context.Context, change func(now time.Time, written []byte) (next []byte, tell bool)) error {
	for {
		var micros, version int64
		var written []byte
		err := a.d.do(ctx, func(ctx context.Context, c *pgx.Conn) error {
			return c.QueryRow(ctx, `SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint, coalesce(version, 0), coalesce(state, '')
				FROM (SELECT $1::text AS name) x LEFT JOIN smtp2rest.accounts USING (name)`, a.name).Scan(&micros, &version, &written)
		})
		if err != nil {
			return err
		}
		next, tell := change(time.UnixMicro(micros).UTC(), written)
		done, err := a.swap(ctx, version, next)
		switch {
		case err != nil:
			return err
		case done && tell:
			a.d.Notify(a.topic(), a.id)
			return nil
		case done:
			return nil
		}
		wait(ctx, jitter(5*time.Millisecond)) // another relay was faster
		if ctx.Err() != nil {
			return errors.New("other relays changed the account's row again and again")
		}
	}
}

// swap replaces what had that version.
func (a *Account) swap(ctx context.Context, version int64, next []byte) (done bool, err error) {
	err = a.d.do(ctx, func(ctx context.Context, c *pgx.Conn) error {
		sql := "UPDATE smtp2rest.accounts SET version = version + 1, state = $3 WHERE name = $1 AND version = $2"
		if version == 0 {
			sql = "INSERT INTO smtp2rest.accounts VALUES ($1, $2::bigint + 1, $3) ON CONFLICT DO NOTHING"
		}
		tag, err := c.Exec(ctx, sql, a.name, version, string(next))
		done = tag.RowsAffected() == 1
		return err
	})
	return done, err
}
