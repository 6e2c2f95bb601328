package postgres

import (
	"context"
	"math/rand/v2"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
)

// channel is what all relays listen on. Its messages are a topic, a space, and what
// is to be said.
const channel = "smtp2rest"

// notifyPause is between two messages of one relay on a topic. A commit that notifies takes a
// lock that all such commits of the server share, so they have to be few.
const notifyPause = 100 * time.Millisecond

// listener has the one connection that listens. Behind a PgBouncer in transaction
// mode nothing comes by it; everything that is told is looked at from time to time as well.
type listener struct {
	d      *DB
	config *pgx.ConnConfig

	mu     sync.Mutex
	hears  bool // something was listened to already
	topics map[string][]subscriber
}

type subscriber struct {
	told func(payload string)
	lost func()
}

func newListener(d *DB, config *pgx.ConnConfig) *listener {
	return &listener{d: d, config: config.Copy(), topics: map[string][]subscriber{}}
}

// Listen has told called for what is said on a topic, by any relay, this one too, and lost when
// something may have been missed. Neither may block. It is for the life of the DB.
func (d *DB) Listen(topic string, told func(payload string), lost func()) {
	d.listener.mu.Lock()
	defer d.listener.mu.Unlock()
	d.listener.topics[topic] = append(d.listener.topics[topic], subscriber{told, lost})
	if d.listener.hears { // what came before was missed
		lost()
	}
}

// run listens until ctx ends.
func (l *listener) run(ctx context.Context) {
	for ctx.Err() == nil {
		_ = l.listen(ctx) // told by the log of backoff
		wait(ctx, time.Second/2+rand.N(time.Second))
	}
}

func (l *listener) listen(ctx context.Context) error {
	if err := l.d.down.wait(); err != nil {
		return err
	}
	c, err := pgx.ConnectConfig(ctx, l.config)
	if err != nil {
		return err
	}
	defer func() {
		closing, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		_ = c.Close(closing)
	}()
	asking, cancel := context.WithTimeout(ctx, connectTimeout)
	_, err = c.Exec(asking, "LISTEN "+channel)
	cancel()
	if err != nil {
		return err
	}
	l.mu.Lock()
	l.hears = true
	l.mu.Unlock()
	l.each("", func(s subscriber) { s.lost() })
	for {
		// A connection that died without a word is noticed by asking.
		hearing, cancel := context.WithTimeout(ctx, 30*time.Second)
		n, err := c.WaitForNotification(hearing)
		quiet := hearing.Err() != nil && ctx.Err() == nil
		cancel()
		switch {
		case err == nil:
			topic, payload, _ := strings.Cut(n.Payload, " ")
			l.each(topic, func(s subscriber) { s.told(payload) })
		case quiet:
			asking, cancel := context.WithTimeout(ctx, connectTimeout)
			err := c.Ping(asking)
			cancel()
			if err != nil {
				return err
			}
		default:
			return err
		}
	}
}

// each calls f for who listens on a topic, "" for all.
func (l *listener) each(topic string, f func(subscriber)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for t, subscribers := range l.topics {
		if topic == "" || topic == t {
			for _, s := range subscribers {
				f(s)
			}
		}
	}
}

// notifier says things to the other relays, not too often.
type notifier struct {
	d     *DB
	ready chan struct{}

	mu      sync.Mutex
	pending map[string]string // by topic
}

func newNotifier(d *DB) *notifier {
	return &notifier{d: d, ready: make(chan struct{}, 1), pending: map[string]string{}}
}

// Notify tells the relays something on a topic, soon. Of what is said within a
// moment only the latest is told. It is called after the commit that it is about.
func (d *DB) Notify(topic, payload string) {
	n := d.notifier
	n.mu.Lock()
	n.pending[topic] = payload
	n.mu.Unlock()
	select {
	case n.ready <- struct{}{}:
	default:
	}
}

// run tells what there is until ctx ends, and then once more.
func (n *notifier) run(ctx context.Context) {
	for ctx.Err() == nil {
		select {
		case <-ctx.Done():
		case <-n.ready:
			n.tell(ctx)
			wait(ctx, notifyPause)
		}
	}
	last, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Second)
	defer cancel()
	n.tell(last)
}

// tell says what is pending. What is not told is found by looking.
func (n *notifier) tell(ctx context.Context) {
	n.mu.Lock()
	pending := n.pending
	n.pending = map[string]string{}
	n.mu.Unlock()
	for topic, payload := range pending {
		_ = n.d.do(ctx, func(ctx context.Context, c *pgx.Conn) error {
			_, err := c.Exec(ctx, "SELECT pg_notify($1, $2)", channel, topic+" "+payload)
			return err
		})
	}
}

// wait waits for a time, or until ctx ends.
func wait(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}
