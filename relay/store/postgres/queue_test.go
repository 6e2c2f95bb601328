package postgres

import (
	"context"
	"errors"
	"testing"
)

// opened is a queue with the connection that is its alone.
type opened struct {
	*Queue
}

func (q opened) Close() error {
	return errors.Join(q.Queue.Close(), q.d.Close())
}

func openQueue(ctx context.Context, o Options) (opened, error) {
	d, err := Connect(ctx, o)
	if err != nil {
		return opened{}, err
	}
	q, err := NewQueue(ctx, d)
	if err != nil {
		return opened{}, errors.Join(err, d.Close())
	}
	return opened{q}, nil
}

// start opens a queue until the test ends.
func start(t testing.TB, o Options) opened {
	t.Helper()
	if o.Log == nil {
		o.Log = quiet()
	}
	q, err := openQueue(context.Background(), o)
	must(t, err)
	t.Cleanup(func() { must(t, q.Close()) })
	return q
}
