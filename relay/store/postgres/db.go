// Package postgres keeps what relays have to keep in a PostgreSQL database that
// several of them share: Queue is relay/queue's contract. DB is the connection to
// the server. pgtest has a server for tests. docs/internals/storage.md says what was
// measured and why it is built this way.
//
// No call depends on what an earlier one left in its session, and no statement is
// prepared by name, so that it works through PgBouncer in transaction mode. What must
// happen together is one statement, mostly a call of a function in the database: so
// no lock is held while a relay, or the network to it, hangs.
package postgres

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/smtp2rest/smtp2rest/relay/queue"
)

// Options say where a store is.
type Options struct {
	// URL as libpq takes it. It may name several servers, of which the one that can
	// be written to is used.
	URL   string
	Queue queue.Options
	// Existing is for a command that looks into a store that relays use: nothing is
	// made or converted, and nothing can be claimed. Connect then fails with
	// fs.ErrNotExist or queue.ErrOlder.
	Existing bool
	// Version is the program's, for the table of relays.
	Version string
	Log     *slog.Logger          // slog.Default() when nil
	Metrics prometheus.Registerer // nil: none

	// What tests set.
	now   func() time.Time // this machine's clock
	lease time.Duration    // leaseTime when 0
}

const (
	// maxConns is how many connections a relay has at most, besides the one that listens.
	maxConns = 8
	// statementTimeout bounds each statement. No statement takes long by itself: what
	// could works in steps.
	statementTimeout = 15 * time.Second
	// connectTimeout bounds the making of a connection, for each of the hosts.
	connectTimeout = 5 * time.Second
)

// DB is a database that this relay is connected to.
type DB struct {
	opts     Options
	log      *slog.Logger
	pool     *pgxpool.Pool
	down     *backoff
	listener *listener
	notifier *notifier

	stop context.CancelFunc // of what runs by itself
	runs sync.WaitGroup
	once sync.Once
}

// Connect connects to a database, and makes or converts what is missing there.
func Connect(ctx context.Context, o Options) (*DB, error) {
	if o.Log == nil {
		o.Log = slog.Default()
	}
	c, err := poolConfig(o.URL)
	if err != nil {
		return nil, err
	}
	d := &DB{opts: o, log: o.Log, down: &backoff{log: o.Log}}
	c.ConnConfig.Tracer = d.down
	c.BeforeConnect = func(context.Context, *pgx.ConnConfig) error { return d.down.wait() }
	if d.pool, err = pgxpool.NewWithConfig(ctx, c); err != nil {
		return nil, &Error{text: err.Error()}
	}
	if err := d.migrate(ctx); err != nil {
		d.pool.Close()
		return nil, err
	}
	background, stop := context.WithCancel(context.WithoutCancel(ctx))
	d.stop = stop
	d.listener, d.notifier = newListener(d, c.ConnConfig), newNotifier(d)
	d.runs.Go(func() { d.listener.run(background) })
	d.runs.Go(func() { d.notifier.run(background) })
	return d, nil
}

// poolConfig reads a URL. No error of it has the password.
func poolConfig(url string) (*pgxpool.Config, error) {
	c, err := pgxpool.ParseConfig(url)
	if err != nil {
		return nil, fmt.Errorf("the URL of the database: %w", err)
	}
	if !strings.Contains(url, "pool_max_conns=") {
		c.MaxConns = maxConns
	}
	c.PingTimeout = connectTimeout
	// Parsed, described and executed without a name, in one round trip: a statement
	// that was prepared may be unknown to the next connection behind a PgBouncer.
	c.ConnConfig.DefaultQueryExecMode = pgx.QueryExecModeExec
	c.ConnConfig.ConnectTimeout = connectTimeout
	if c.ConnConfig.ValidateConnect == nil {
		// A server that was the primary may come back as a standby.
		c.ConnConfig.ValidateConnect = pgconn.ValidateConnectTargetSessionAttrsReadWrite
	}
	if _, ok := c.ConnConfig.RuntimeParams["application_name"]; !ok {
		c.ConnConfig.RuntimeParams["application_name"] = "smtp2rest"
	}
	return c, nil
}

// Close ends what runs by itself and lets go of all connections. Nothing else may
// use them any more. Closing twice is harmless.
func (d *DB) Close() error {
	d.once.Do(func() {
		d.stop()
		d.runs.Wait()
		d.pool.Close()
	})
	return nil
}

// do runs f with a connection. A context that ends before f begins ends the call;
// after that f sees its work through, for at most the time-out of a statement.
func (d *DB) do(ctx context.Context, f func(ctx context.Context, c *pgx.Conn) error) error {
	return d.within(ctx, statementTimeout, f)
}

// within is do with another time-out. It is one for the connection and one for the work.
func (d *DB) within(ctx context.Context, limit time.Duration, f func(ctx context.Context, c *pgx.Conn) error) error {
	acquiring, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	c, err := d.pool.Acquire(acquiring)
	if ctx.Err() != nil {
		if c != nil {
			c.Release()
		}
		return ctx.Err()
	}
	if err != nil {
		return &Error{text: err.Error()}
	}
	defer c.Release()
	working, done := context.WithTimeout(context.WithoutCancel(ctx), limit)
	defer done()
	return describe(c.Conn(), f(working, c.Conn()))
}

// tx runs f in a transaction of several statements.
func (d *DB) tx(ctx context.Context, f func(ctx context.Context, t pgx.Tx) error) error {
	return d.do(ctx, func(ctx context.Context, c *pgx.Conn) error {
		return pgx.BeginTxFunc(ctx, c, beginning(), func(t pgx.Tx) error { return f(ctx, t) })
	})
}

// beginning is how a transaction of several statements begins: a relay that hangs in it
// must not hold others up.
func beginning() pgx.TxOptions {
	return pgx.TxOptions{BeginQuery: fmt.Sprintf(
		"BEGIN; SET LOCAL statement_timeout = %[1]d; SET LOCAL idle_in_transaction_session_timeout = %[1]d", statementTimeout.Milliseconds())}
}

// Error is what the database or the way to it refused. It is not one of the context's,
// because those say that nothing was changed.
type Error struct {
	// Code is PostgreSQL's five characters for the error, "" when no answer came.
	Code string
	// Unknown: the connection broke, so that what was asked for may have been done.
	Unknown bool
	text    string
}

func (e *Error) Error() string { return "the database: " + e.text }

// Is makes it queue.ErrUnreachable where there was no answer, or none of a server that can be
// written to.
func (e *Error) Is(target error) bool {
	return target == queue.ErrUnreachable && (e.Code == "" || e.Unknown || e.Code == readOnly)
}

// unknown reports whether it is not known what became of a call.
func unknown(err error) bool {
	e, ok := errors.AsType[*Error](err)
	return ok && e.Unknown
}

// describe makes an *Error of what the database or the connection refused. What is an
// error of ours stays one. A connection that is of no use any more is closed.
func describe(c *pgx.Conn, err error) error {
	if err == nil {
		return nil
	}
	pg, ok := errors.AsType[*pgconn.PgError](err)
	if !ok && !c.IsClosed() {
		return err
	}
	if !ok {
		return &Error{Unknown: true, text: err.Error()}
	}
	e := &Error{Code: pg.Code, text: pg.Message + " (" + pg.Code + ")"}
	// A connection that the server ends may have waited for its commit to be replicated.
	e.Unknown = strings.HasPrefix(e.Code, "57P") || strings.HasPrefix(e.Code, "08")
	if e.Unknown || e.Code == readOnly {
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		_ = c.Close(ctx)
	}
	return e
}

// readOnly is the code of a server that became a standby.
const readOnly = "25006"
