package deliver

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"runtime/debug"
	"sync"
	"time"

	"github.com/smtp2rest/smtp2rest/relay"
	"github.com/smtp2rest/smtp2rest/relay/attempt"
	"github.com/smtp2rest/smtp2rest/relay/mail"
	"github.com/smtp2rest/smtp2rest/relay/provider"
	"github.com/smtp2rest/smtp2rest/relay/queue"
)

// Memory is what mail of the queue holds of the memory that the daemon may
// take; relay/app has it of smtpd/budget.
type Memory interface {
	// Hold makes it n bytes in all; it waits for more until ctx ends.
	Hold(ctx context.Context, n int64) error
	Release()
}

// memoryWait is how long a mail waits for memory, with its leave to make a call,
// before another may have its turn.
const memoryWait = 30 * time.Second

// memoryPause is how long a mail is left alone for which there was none.
const memoryPause = 10 * time.Second

// bodies maps queued mails to what the API gets. It remembers the latest one,
// because the recipients of one mail mostly follow each other; more would be
// memory that grows with the size of mail.
type bodies struct {
	queue  queue.Queue
	encode func(raw []byte, m *relay.Message, o provider.Mapping) (provider.Body, error)
	memory func() Memory

	mu      sync.Mutex
	latest  *mapped
	idle    bool // no other recipient is due
	mapping provider.Mapping
}

// mapped is a mail as the API gets it, from when it is ready.
type mapped struct {
	id     string
	memory Memory
	users  int // attempts, and bodies for the latest

	ready chan struct{} // closed when the rest is set
	err   error
	body  provider.Body
	trace string // in its header
}

var (
	// errMapping: the mapping of a mail panicked.
	errMapping = errors.New("the mapping of the mail failed")
	// errMemory: there was none for the mail in time.
	errMemory = errors.New("there is no memory for the mail at the moment")
)

func newBodies(o Options) *bodies {
	b := &bodies{queue: o.Queue, memory: o.Memory, mapping: o.Mapping, encode: func(raw []byte, m *relay.Message, o provider.Mapping) (provider.Body, error) {
		parsed, err := mail.Map(raw, m.From, o.For(m.Client.User))
		if err != nil {
			return nil, err
		}
		return o.Format.Encode(parsed)
	}}
	if b.memory == nil {
		b.memory = func() Memory { return unbounded{} }
	}
	return b
}

type unbounded struct{}

func (unbounded) Hold(context.Context, int64) error { return nil }
func (unbounded) Release()                          {}

// configure maps what comes from now on in another way.
func (b *bodies) configure(o provider.Mapping) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.mapping = o
	b.replace(nil)
}

// get returns a mail that is ready to be sent, until put. Attempts at the same
// mail that come meanwhile wait for what the first makes of it.
func (b *bodies) get(ctx context.Context, m queue.Mail) (*mapped, error) {
	b.mu.Lock()
	if one := b.latest; one != nil && one.id == m.Message.ID {
		one.users++
		b.mu.Unlock()
		return b.await(ctx, one)
	}
	b.replace(nil) // first, for its memory may be what there is
	one := &mapped{id: m.Message.ID, memory: b.memory(), users: 1, ready: make(chan struct{})}
	b.replace(one)
	mapping := b.mapping
	b.mu.Unlock()
	one.err = b.load(ctx, one, m, mapping)
	close(one.ready)
	if one.err != nil {
		b.forget(one)
	}
	return b.await(ctx, one)
}

func (b *bodies) await(ctx context.Context, one *mapped) (*mapped, error) {
	select {
	case <-one.ready:
	case <-ctx.Done():
	}
	err := ctx.Err()
	if err == nil {
		err = one.err
	}
	if err != nil {
		b.put(one)
		return nil, err
	}
	return one, nil
}

// forget lets the next attempt at the mail begin anew.
func (b *bodies) forget(m *mapped) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.latest == m {
		b.replace(nil)
	}
}

// rest says whether no other recipient is due. Then the latest mail is kept no
// longer than it is being sent: an idle queue keeps no memory from those who hand
// mail over.
func (b *bodies) rest(idle bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.idle = idle
	b.letGo()
}

// letGo forgets the latest mail if the queue is idle and nobody sends it.
func (b *bodies) letGo() {
	if b.idle && b.latest != nil && b.latest.users == 1 {
		b.replace(nil)
	}
}

func (b *bodies) put(m *mapped) {
	b.mu.Lock()
	defer b.mu.Unlock()
	m.drop()
	b.letGo()
}

// replace takes the place of the latest.
func (b *bodies) replace(m *mapped) {
	if b.latest != nil {
		b.latest.drop()
	}
	if b.latest = m; m != nil {
		m.users++
	}
}

func (m *mapped) drop() {
	if m.users--; m.users == 0 {
		m.memory.Release()
	}
}

// load reads and maps a mail, once there is memory for it.
func (b *bodies) load(ctx context.Context, one *mapped, m queue.Mail, o provider.Mapping) error {
	wait, cancel := context.WithTimeout(ctx, memoryWait)
	defer cancel()
	held := m.Size + mail.MostCost(m.Size)
	if err := one.memory.Hold(wait, held); err != nil {
		return fmt.Errorf("%w: %w", errMemory, err)
	}
	raw, err := readWhole(ctx, b.queue, m)
	if err != nil {
		return err
	}
	if need := m.Size + mail.Cost(raw, o.Limits); need > held {
		// Two mails that each hold some and wait for more would wait for each
		// other. To hold less always works.
		_ = one.memory.Hold(wait, 0)
		if err := one.memory.Hold(wait, need); err != nil {
			return fmt.Errorf("%w: %w", errMemory, err)
		}
	}
	if one.body, err = b.guarded(raw, &m.Message, o); err != nil {
		return err
	}
	one.trace = attempt.Trace(raw)
	if err := one.memory.Hold(wait, one.body.Len("")); err != nil {
		return fmt.Errorf("%w: %w", errMemory, err)
	}
	return nil
}

// guarded turns a panic in the mapping of one mail into an error: it must not
// end the daemon, which would meet the same mail again at its next start.
func (b *bodies) guarded(raw []byte, m *relay.Message, o provider.Mapping) (body provider.Body, err error) {
	defer func() {
		if r := recover(); r != nil {
			body, err = nil, fmt.Errorf("%w: %v\n%s", errMapping, r, debug.Stack())
		}
	}()
	return b.encode(raw, m, o)
}

// readWhole reads a mail as it came.
func readWhole(ctx context.Context, q queue.Queue, m queue.Mail) ([]byte, error) {
	r, err := q.Raw(ctx, m.Message.ID)
	if err != nil {
		return nil, err
	}
	defer func() { _ = r.Close() }()                            // read only: there is nothing to lose
	b := bytes.NewBuffer(make([]byte, 0, m.Size+bytes.MinRead)) // so that it does not grow
	_, err = b.ReadFrom(r)
	return b.Bytes(), err
}

// readHead reads the first bytes of a mail.
func readHead(ctx context.Context, q queue.Queue, id string, limit int64) ([]byte, error) {
	r, err := q.Raw(ctx, id)
	if err != nil {
		return nil, err
	}
	defer func() { _ = r.Close() }() // read only: there is nothing to lose
	return io.ReadAll(io.LimitReader(r, limit))
}
