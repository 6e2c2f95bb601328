package admin

import (
	"context"
	"errors"
	"io"
	"time"

	"github.com/smtp2rest/smtp2rest/relay/queue"
)

// ErrNoQueue: the relay keeps no queue, so that there is nothing to see in it.
var ErrNoQueue = errors.New(`this relay keeps no queue (queue.mode = "none")`)

// noQueue is what an operator finds where there is no queue.
type noQueue struct{}

func (noQueue) Get(context.Context, string) (queue.Mail, error)    { return queue.Mail{}, ErrNoQueue }
func (noQueue) Raw(context.Context, string) (io.ReadCloser, error) { return nil, ErrNoQueue }
func (noQueue) Hold(context.Context, queue.Filter) (int, error)    { return 0, ErrNoQueue }
func (noQueue) Release(context.Context, queue.Filter) (int, error) { return 0, ErrNoQueue }
func (noQueue) Drop(context.Context, queue.Filter) (int, error)    { return 0, ErrNoQueue }
func (noQueue) Stats(context.Context) (queue.Stats, error)         { return queue.Stats{}, nil }
func (noQueue) Retry(context.Context, queue.Filter, time.Time) (int, error) {
	return 0, ErrNoQueue
}

func (noQueue) List(context.Context, queue.Filter) ([]queue.Entry, string, error) {
	return nil, "", ErrNoQueue
}
