package postgres

import (
	"context"
	"fmt"
	"io/fs"

	"github.com/jackc/pgx/v5"

	"github.com/smtp2rest/smtp2rest/relay/queue"
)

// The contract's errors, with their subject.
var (
	errNewer = fmt.Errorf("the database was %w", queue.ErrNewer)
	errOlder = fmt.Errorf("the database was %w", queue.ErrOlder)
)

// migrations[i] takes a database from version i to i+1. A released one is never
// changed.
//
// Relays of two versions that follow each other run side by side while they are
// upgraded. So a migration only adds (expand): what the version before uses is
// removed by the next migration but one (contract), and a function that changes gets
// a new name.
var migrations = [...]string{queueSchema, recordsSchema, accountsSchema}

// migrationLock is the advisory lock of whoever converts: "smtp2rst".
const migrationLock = 0x736d747032727374

// migrate brings the schema up to date, one relay at a time and all or nothing.
func (d *DB) migrate(ctx context.Context) error {
	version, err := d.version(ctx)
	if err != nil {
		return err
	}
	switch {
	case version > len(migrations)+1:
		return fmt.Errorf("%w: its schema has version %d, this program knows %d and can work beside one more", errNewer, version, len(migrations))
	case version >= len(migrations):
		return nil
	case d.opts.Existing && version == 0:
		return fmt.Errorf("the database has no mail of smtp2rest: %w", fs.ErrNotExist)
	case d.opts.Existing:
		return errOlder
	}
	return d.tx(ctx, func(ctx context.Context, t pgx.Tx) error {
		if _, err := t.Exec(ctx, "SELECT pg_advisory_xact_lock($1)", int64(migrationLock)); err != nil {
			return err
		}
		if _, err := t.Exec(ctx, versionSchema); err != nil {
			return err
		}
		if err := t.QueryRow(ctx, "SELECT version FROM smtp2rest.schema").Scan(&version); err != nil {
			return err
		}
		for i := version; i < len(migrations); i++ {
			if _, err := t.Exec(ctx, migrations[i]); err != nil {
				return fmt.Errorf("version %d of the schema: %w", i+1, err)
			}
		}
		if version < len(migrations) {
			_, err := t.Exec(ctx, "UPDATE smtp2rest.schema SET version = $1", len(migrations))
			return err
		}
		return nil
	})
}

// version is the schema's, 0 when there is none.
func (d *DB) version(ctx context.Context) (version int, err error) {
	err = d.do(ctx, func(ctx context.Context, c *pgx.Conn) error {
		var there bool
		if err := c.QueryRow(ctx, "SELECT to_regclass('smtp2rest.schema') IS NOT NULL").Scan(&there); err != nil || !there {
			return err
		}
		return c.QueryRow(ctx, "SELECT version FROM smtp2rest.schema").Scan(&version)
	})
	return version, err
}

// versionSchema is made first.
const versionSchema = `
CREATE SCHEMA IF NOT EXISTS smtp2rest;
CREATE TABLE IF NOT EXISTS smtp2rest.schema (one bool PRIMARY KEY DEFAULT true CHECK (one), version int NOT NULL);
INSERT INTO smtp2rest.schema (version) VALUES (0) ON CONFLICT DO NOTHING;
`
