package intake

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/smtp2rest/smtp2rest/relay"
	"github.com/smtp2rest/smtp2rest/relay/attempt"
	"github.com/smtp2rest/smtp2rest/relay/bounce"
	"github.com/smtp2rest/smtp2rest/relay/mail"
	"github.com/smtp2rest/smtp2rest/relay/pace"
	"github.com/smtp2rest/smtp2rest/relay/provider"
	"github.com/smtp2rest/smtp2rest/relay/provider/nexuspromail"
	"github.com/smtp2rest/smtp2rest/relay/suppress"
)

// TestOneKeyUntilTheAnswer hands one mail over again and again, for changing
// recipients, while the API, the queue and the relay fail in every order. Until its
// client is told 250 or 5xx, a recipient that may have the mail is tried by one key
// alone, and one that has it is not tried.
func TestOneKeyUntilTheAnswer(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		m := newResendModel(rt)
		for range rapid.IntRange(2, 10).Draw(rt, "steps") {
			if rapid.IntRange(0, 3).Draw(rt, "restart") == 0 {
				m.restart()
			}
			m.handOver()
		}
		m.end()
	})
}

// resendModel is an Intake whose API, queue and marks are played, and what must
// hold of each recipient.
type resendModel struct {
	*rapid.T
	in    *Intake
	opt   Options
	marks *fakeMarks
	queue *resendQueue

	mu     sync.Mutex
	plan   map[string]relay.Kind // what the API answers to whom
	people map[string]*person    // by normalised address
}

// person is a recipient since its client was last told 250 or 5xx.
type person struct {
	key     string // of the call that may have sent the mail
	has     bool
	refused bool
}

// resendQueue keeps mail, or is full.
type resendQueue struct {
	full bool
	kept map[string]relay.Remainder // by id
	now  []string                   // ids that the last message left in it
	fail func(format string, args ...any)
}

func (q *resendQueue) Keep(_ context.Context, parts ...relay.Remainder) error {
	if q.full {
		return errors.New("full")
	}
	for _, r := range parts {
		for id := range q.kept { // a second mail by an id is taken for the first, and people name mail by the beginning of its id
			if strings.HasPrefix(id, r.Message.ID) || strings.HasPrefix(r.Message.ID, id) {
				q.fail("the queue is given mail by the ids %s and %s", id, r.Message.ID)
			}
		}
		q.kept[r.Message.ID] = r
		q.now = append(q.now, r.Message.ID)
	}
	return nil
}

func newResendModel(rt *rapid.T) *resendModel {
	m := &resendModel{T: rt, marks: newFakeMarks(), people: map[string]*person{}}
	m.queue = &resendQueue{kept: map[string]relay.Remainder{}, fail: rt.Fatalf}
	for _, who := range []string{"a", "b", "c", "d"} {
		m.people[who+"@example.net"] = &person{}
	}
	m.opt = playedOptions()
	m.opt.Queue, m.opt.Marks = m.queue, m.marks
	m.opt.Wait = 5 * time.Millisecond
	m.restart()
	return m
}

// playedOptions are for an Intake whose API is played.
func playedOptions() Options {
	return Options{
		Settings: Settings{
			Mapping: provider.Mapping{Options: mail.Options{Default: relay.Address{Email: "relay@sandbox.example"}, Domains: []string{"sandbox.example"}}, Format: nexuspromail.Format{}},
			Bounce:  bounce.Options{From: relay.Address{Email: "relay@sandbox.example"}, Hostname: "relay.test"},
			Wait:    patience,
		},
		Suppressions: suppress.New(suppress.Options{Settings: suppress.Settings{Expire: time.Hour, Unsubscribed: true}}),
		Queue:        NoQueue{}, Log: slog.New(slog.DiscardHandler),
	}
}

// attemptsAt makes attempts at a played API. Its breaker and gate are as new.
func attemptsAt(api provider.Client, o Options) *attempt.Sender {
	return attempt.New(attempt.Options{
		API: api, Suppressions: o.Suppressions, Log: o.Log,
		Pace: pace.New(pace.Options{Settings: pace.Settings{Concurrency: 8, MaxPause: time.Hour}, Log: o.Log}),
	})
}

func (m *resendModel) restart() {
	m.in = New(m.opt)
	if err := m.in.Restore(context.Background()); err != nil {
		m.Fatal(err)
	}
}

// Send plays the API.
func (m *resendModel) Send(_ context.Context, r provider.Request) relay.Outcome {
	m.mu.Lock()
	defer m.mu.Unlock()
	to := suppress.Normalise(r.To)
	p := m.people[to]
	out := relay.Outcome{Kind: m.plan[to], Status: 500}
	switch {
	case p == nil: // a bounce
		return out
	case p.has:
		m.Errorf("%s has the mail, and is called again", to)
	case p.key != "" && p.key != r.IdempotencyKey:
		m.Errorf("%s may have the mail by the key %s, and is called by %s", to, p.key, r.IdempotencyKey)
	}
	p.refused = false // where nobody was reached, nothing is remembered
	switch out.Kind {
	case relay.Accepted:
		p.has, out.MessageID = true, "msg_1"
	case relay.Refused:
		p.refused, p.key = true, "" // that is an answer
	case relay.Ambiguous:
		p.key = r.IdempotencyKey
	case relay.RateLimited:
		out.RetryAfter = time.Hour
	}
	return out
}

// handOver has a client send the mail for some of the people.
func (m *resendModel) handOver() {
	m.opt.Attempts = attemptsAt(m, m.opt)
	m.in.opt.Attempts = m.opt.Attempts
	set := m.opt.Settings
	if rapid.IntRange(0, 5).Draw(m.T, "no calls") == 0 {
		set.Wait = 0
	}
	m.in.set.Store(&set)
	m.queue.full, m.queue.now = rapid.IntRange(0, 3).Draw(m.T, "full") > 0, nil

	names := rapid.SliceOfNDistinct(rapid.SampledFrom([]string{"a", "b", "c", "d"}), 1, 4, rapid.ID).Draw(m.T, "to")
	kinds := []relay.Kind{relay.Accepted, relay.Ambiguous, relay.Ambiguous, relay.Unavailable, relay.Unauthorized, relay.RateLimited, relay.Refused}
	m.plan = map[string]relay.Kind{"shop@sandbox.example": rapid.SampledFrom(kinds[:4]).Draw(m.T, "bounce")}
	for i, name := range names {
		m.plan[name+"@example.net"] = rapid.SampledFrom(kinds).Draw(m.T, name)
		domain := rapid.SampledFrom([]string{"@example.net", "@Example.NET"}).Draw(m.T, "case")
		names[i] += domain
	}
	env := envelope("shop@sandbox.example", names...)
	if rapid.Bool().Draw(m.T, "each") {
		for i, r := range m.in.MessageEach(context.Background(), env, []byte(withID)) {
			m.told(r.Code(), names[i])
		}
		return
	}
	m.told(m.in.Message(context.Background(), env, []byte(withID)).Code(), names...)
}

// told checks what a reply promises of these recipients, after which it is over
// with them unless the client is to come again.
func (m *resendModel) told(code int, names ...string) {
	for _, name := range names {
		to := suppress.Normalise(name)
		p := m.people[to]
		if code/100 == 2 && !p.has && !p.refused {
			m.inQueue(name, p)
		}
		if code/100 != 4 {
			*p = person{}
		}
	}
}

func (m *resendModel) inQueue(name string, p *person) {
	for _, id := range m.queue.now {
		r := m.queue.kept[id]
		i := slices.IndexFunc(r.Message.Recipients, func(to string) bool { return suppress.Normalise(to) == suppress.Normalise(name) })
		switch {
		case i < 0:
		case r.Outcomes[i].Kind.Settled():
			m.Errorf("%s is told 250, and the queue that it is settled", name)
		case p.key != "" && attempt.IdempotencyKey(id, r.Message.Recipients[i]) != p.key:
			m.Errorf("%s may have the mail by the key %s, and the queue tries it by the id %s", name, p.key, id)
			return
		default:
			return
		}
	}
	m.Errorf("%s is told 250, and is nowhere: the queue took %v", name, m.queue.now)
}

// end takes all of it: then nothing is remembered.
func (m *resendModel) end() {
	for to := range m.people {
		m.plan[to] = relay.Accepted
	}
	m.plan["shop@sandbox.example"] = relay.Accepted
	m.in.opt.Attempts = attemptsAt(m, m.opt)
	set := m.opt.Settings
	set.Wait = patience
	m.in.set.Store(&set)
	all := []string{"a@example.net", "b@example.net", "c@example.net", "d@example.net"}
	r := m.in.Message(context.Background(), envelope("shop@sandbox.example", all...), []byte(withID))
	if !r.Positive() && r.Code()/100 != 5 {
		m.Fatalf("in the end the client is told %s", r)
	}
	if names, n := m.marks.names(), m.in.recall.size(); len(names) > 0 || n > 0 {
		m.Errorf("in the end %d are remembered, and the marks are %s", n, strings.Join(names, " "))
	}
}
