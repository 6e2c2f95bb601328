package deliver

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime/debug"
	"sync"

	"github.com/smtp2rest/smtp2rest/relay"
	"github.com/smtp2rest/smtp2rest/relay/attempt"
	"github.com/smtp2rest/smtp2rest/relay/payload"
	"github.com/smtp2rest/smtp2rest/relay/queue"
)

// bodies maps queued mails to what the API gets. It remembers the latest one,
// because the recipients of one mail mostly follow each other; more would be
// memory that grows with the size of mail.
type bodies struct {
	queue  queue.Queue
	encode func(raw []byte, m *relay.Message) (*payload.Body, error)

	mu    sync.Mutex
	id    string
	body  *payload.Body
	trace string // in its header
}

// errMapping: the mapping of a mail panicked.
var errMapping = errors.New("the mapping of the mail failed")

func newBodies(o Options) *bodies {
	return &bodies{queue: o.Queue, encode: func(raw []byte, m *relay.Message) (*payload.Body, error) {
		mail, err := payload.Map(raw, m.From, o.Mapping.For(m.Client.User))
		if err != nil {
			return nil, err
		}
		return mail.Encode()
	}}
}

// get returns a mail's body, and the trace that it belongs to.
func (b *bodies) get(ctx context.Context, m queue.Mail) (*payload.Body, string, error) {
	b.mu.Lock()
	id, body, trace := b.id, b.body, b.trace
	b.mu.Unlock()
	if id == m.Message.ID && body != nil {
		return body, trace, nil
	}
	raw, err := readRaw(ctx, b.queue, m.Message.ID, -1)
	if err != nil {
		return nil, "", err
	}
	if body, err = b.guarded(raw, &m.Message); err != nil {
		return nil, "", err
	}
	trace = attempt.Trace(raw)
	b.mu.Lock()
	b.id, b.body, b.trace = m.Message.ID, body, trace
	b.mu.Unlock()
	return body, trace, nil
}

// guarded turns a panic in the mapping of one mail into an error: it must not
// end the daemon, which would meet the same mail again at its next start.
func (b *bodies) guarded(raw []byte, m *relay.Message) (body *payload.Body, err error) {
	defer func() {
		if r := recover(); r != nil {
			body, err = nil, fmt.Errorf("%w: %v\n%s", errMapping, r, debug.Stack())
		}
	}()
	return b.encode(raw, m)
}

// readRaw reads a mail as it came, or its first bytes; -1 is all of it.
func readRaw(ctx context.Context, q queue.Queue, id string, limit int64) (raw []byte, err error) {
	r, err := q.Raw(ctx, id)
	if err != nil {
		return nil, err
	}
	defer func() { _ = r.Close() }() // read only: there is nothing to lose
	if limit >= 0 {
		return io.ReadAll(io.LimitReader(r, limit))
	}
	return io.ReadAll(r)
}
