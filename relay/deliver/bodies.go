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

// Memory is a share of the daemon's memory, held for one queued mail. relay/app
// implements it with smtpd/budget.
type Memory interface {
	// Hold sets the share to n bytes. It waits for more memory until ctx ends.
	Hold(ctx context.Context, n int64) error
	Release()
}

// memoryWait is how long a mail waits for memory, while it holds a pass for a
// call, before another mail gets its turn.
const memoryWait = 30 * time.Second

// memoryPause is how long a mail that got no memory is left alone.
const memoryPause = 10 * time.Second

// bodies maps queued mails to API requests. It remembers the last one, because the
// recipients of one mail usually follow each other. Remembering more would take
// memory that grows with the size of mail.
type bodies struct {
	queue  queue.Queue
	encode func(raw []byte, m *relay.Message, o provider.Mapping) (provider.Body, error)
	memory func() Memory

	mu      sync.Mutex
	latest  *mapped
	idle    bool // nothing else is due
	mapping provider.Mapping
}

// mapped is a mail as the API gets it. It can be used once it is ready.
type mapped struct {
	id     string
	memory Memory
	users  int // attempts, plus one while it is the latest of bodies

	ready chan struct{} // closed when the fields below are set
	err   error
	body  provider.Body
	trace string // the mail's traceparent
}

var (
	errMapping = errors.New("the mapping of the mail panicked")
	errMemory  = errors.New("no memory for the mail at the moment")
)

func newBodies(o Options) *bodies {
	b := &bodies{queue: o.Queue, memory: o.Memory, mapping: o.Mapping, encode: func(raw []byte, m *relay.Message, o provider.Mapping) (provider.Body, error) {
		parsed, err := mail.Map(raw, m.From, o.ForClient(m.Client))
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

// configure changes the mapping for mails that come from now on.
func (b *bodies) configure(o provider.Mapping) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.mapping = o
	b.replace(nil)
}

// get returns a mail that is ready to be sent. The caller must put it back. Other
// attempts at the same mail wait for the first one to map it.
func (b *bodies) get(ctx context.Context, m queue.Mail) (*mapped, error) {
	b.mu.Lock()
	if one := b.latest; one != nil && one.id == m.Message.ID {
		one.users++
		b.mu.Unlock()
		return b.await(ctx, one)
	}
	b.replace(nil) // first: the new mail may need its memory
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

// forget makes the next attempt at the mail map it again.
func (b *bodies) forget(m *mapped) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.latest == m {
		b.replace(nil)
	}
}

// setIdle says whether anything else is due. If not, the latest mail is dropped as
// soon as it is sent, so that an idle queue leaves the memory to SMTP clients.
func (b *bodies) setIdle(idle bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.idle = idle
	b.dropUnused()
}

// dropUnused drops the latest mail if the queue is idle and no attempt uses it.
func (b *bodies) dropUnused() {
	if b.idle && b.latest != nil && b.latest.users == 1 {
		b.replace(nil)
	}
}

func (b *bodies) put(m *mapped) {
	b.mu.Lock()
	defer b.mu.Unlock()
	m.drop()
	b.dropUnused()
}

// replace makes m the latest mail, and drops the one before.
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

// load waits for memory, then reads and maps a mail.
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
		// Release everything before asking for more. Else two mails could each
		// hold a part and wait for the other's. Holding less never fails.
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

// guarded turns a panic in the mapping into an error. The panic must not end the
// daemon, which would meet the same mail again after its restart.
func (b *bodies) guarded(raw []byte, m *relay.Message, o provider.Mapping) (body provider.Body, err error) {
	defer func() {
		if r := recover(); r != nil {
			body, err = nil, fmt.Errorf("%w: %v\n%s", errMapping, r, debug.Stack())
		}
	}()
	return b.encode(raw, m, o)
}

// readWhole reads a mail.
func readWhole(ctx context.Context, q queue.Queue, m queue.Mail) ([]byte, error) {
	r, err := q.Raw(ctx, m.Message.ID)
	if err != nil {
		return nil, err
	}
	defer func() { _ = r.Close() }()                            // only read
	b := bytes.NewBuffer(make([]byte, 0, m.Size+bytes.MinRead)) // never grows
	_, err = b.ReadFrom(r)
	return b.Bytes(), err
}

// readHead reads the first bytes of a mail, at most limit.
func readHead(ctx context.Context, q queue.Queue, id string, limit int64) ([]byte, error) {
	r, err := q.Raw(ctx, id)
	if err != nil {
		return nil, err
	}
	defer func() { _ = r.Close() }() // only read
	return io.ReadAll(io.LimitReader(r, limit))
}
