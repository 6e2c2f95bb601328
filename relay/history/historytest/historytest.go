// Package historytest holds every backend of relay/history to its contract: a
// model, which is a map and the plainest code, is compared with the backend
// over random lives of mails.
package historytest

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/smtp2rest/smtp2rest/relay"
	"github.com/smtp2rest/smtp2rest/relay/history"
	"github.com/smtp2rest/smtp2rest/relay/suppress"
)

// Backend is a store under test.
type Backend interface {
	history.Store
	// AddEvent adds an event of the provider.
	AddEvent(e relay.Event) error
	// Restart closes the store and opens it again.
	Restart() error
}

// TB is what of testing.TB and rapid.T a backend needs to be opened.
type TB interface {
	Cleanup(f func())
	Fatal(args ...any)
}

// Run holds a backend to the contract: cases that were once wrong by name, then
// random lives compared with the model. open gives an empty backend.
func Run(t *testing.T, open func(t TB) Backend) {
	t.Run("events of mail that was taken twice", func(t *testing.T) { takenTwice(t, open(t)) })
	rapid.Check(t, func(rt *rapid.T) {
		m := &model{T: rt, b: open(rt), mails: map[string]*history.Mail{}, closed: map[string]bool{}, now: time.UnixMilli(1_800_000_000_000).UTC()}
		rt.Repeat(map[string]func(*rapid.T){
			"came":    m.came,
			"refused": m.refused,
			"tried":   m.tried,
			"gave up": m.gaveUp,
			"dropped": m.dropped,
			"unknown": m.unknown,
			"event":   m.event,
			"prune":   m.prune,
			"forget":  m.forget,
			"restart": m.restart,
			"find":    m.find,
			"":        m.check,
		})
	})
}

// restart is slow, and so not done often.
func (m *model) restart(*rapid.T) {
	if rapid.IntRange(0, 9).Draw(m.T, "really") == 0 {
		m.must(m.b.Restart())
	}
}

type model struct {
	*rapid.T
	b      Backend
	mails  map[string]*history.Mail
	closed map[string]bool // of which nothing is recorded
	events []relay.Event
	told   int // how many events there were
	now    time.Time
	ids    []string
}

func (m *model) must(err error) {
	m.Helper()
	if err != nil {
		m.Fatal(err)
	}
}

func (m *model) tick() time.Time {
	m.now = m.now.Add(time.Duration(rapid.IntRange(1, 3_600_000).Draw(m.T, "ms")) * time.Millisecond)
	return m.now
}

func addresses() []string {
	return []string{"bob@example.net", "Zoe@Example.NET", "x.y+tag@example.org", "root@localhost", "jörg@exämple.de"}
}

func (m *model) address(label string) string {
	return rapid.SampledFrom(addresses()).Draw(m.T, label)
}

func (m *model) some() (*history.Mail, bool) {
	if len(m.ids) == 0 {
		return nil, false
	}
	id := rapid.SampledFrom(m.ids).Draw(m.T, "mail")
	mail, ok := m.mails[id]
	if !ok { // pruned or forgotten: a fact that comes late
		return &history.Mail{ID: id, Recipients: []history.Recipient{{Addr: m.address("late")}}}, true
	}
	return mail, true
}

func (m *model) someRecipient() (id, to string, ok bool) {
	mail, ok := m.some()
	if !ok || len(mail.Recipients) == 0 {
		return "", "", false
	}
	return mail.ID, rapid.SampledFrom(mail.Recipients).Draw(m.T, "recipient").Addr, true
}

func (m *model) note(facts ...history.Fact) {
	changes := history.Changes(facts...)
	m.must(m.b.Write(m.Context(), changes))
	for _, c := range changes {
		m.apply(c)
	}
}

// apply is what the contract says of Write.
func (m *model) apply(c history.Change) {
	if m.closed[c.ID] || c.Head != nil && m.closed[c.Head.BounceOf] {
		m.closed[c.ID] = true
		return
	}
	mail := m.mails[c.ID]
	if mail == nil {
		mail = &history.Mail{ID: c.ID, Received: c.Received}
		m.mails[c.ID] = mail
	}
	mail.Sender = cmp.Or(c.Sender, mail.Sender)
	if c.Reply != "" {
		mail.Reply, mail.Answered = c.Reply, c.Answered
	}
	if c.Head != nil {
		mail.Head = *c.Head
	}
	for _, r := range c.Recipients {
		i := slices.IndexFunc(mail.Recipients, func(have history.Recipient) bool { return key(have.Addr) == key(r.Addr) })
		if i < 0 {
			i = len(mail.Recipients)
			mail.Recipients = append(mail.Recipients, history.Recipient{Addr: r.Addr, State: history.Waiting})
		}
		have := &mail.Recipients[i]
		switch {
		case r.State != "" && r.State != have.State:
			have.State, have.Ended = r.State, r.Ended
		case r.State == "" && !r.Refused.IsZero() && slices.Contains([]history.State{history.Waiting, history.Failed, history.Unknown}, have.State):
			have.State, have.Ended = r.StateOfRefused(), r.Refused
		case r.State == "" && have.State == history.Unknown:
			have.State, have.Ended = history.Waiting, time.Time{}
		}
		have.Named, have.APIID = cmp.Or(r.Named, have.Named), cmp.Or(r.APIID, have.APIID)
		have.Steps = append(have.Steps, r.Steps...)
	}
}

func key(addr string) string { return suppress.Normalise(addr) }

func (m *model) newMail() (*relay.Message, history.Head) {
	at := m.tick()
	msg := &relay.Message{
		ID: relay.NewID(at), ReceivedAt: at, From: rapid.SampledFrom(append(addresses(), "")).Draw(m.T, "from"), Raw: []byte("raw"),
		Client: relay.Client{Addr: "10.0.0.1:2", Helo: "app"},
	}
	msg.Recipients = rapid.SliceOfNDistinct(rapid.SampledFrom(addresses()), 1, 3, rapid.ID).Draw(m.T, "to")
	if rapid.IntRange(0, 3).Draw(m.T, "aliased") == 0 {
		msg.Aliases = map[string]string{msg.Recipients[0]: "alias@example.org"}
	}
	head := history.Head{
		MessageID: rapid.SampledFrom([]string{"", "a@x", "b@x"}).Draw(m.T, "message id"),
		Subject:   rapid.SampledFrom([]string{"", "Hello Bob", "Reset 100%"}).Draw(m.T, "subject"),
		Author:    m.address("author"),
	}
	if len(m.ids) > 0 && rapid.IntRange(0, 4).Draw(m.T, "bounce") == 0 {
		head.BounceOf = rapid.SampledFrom(m.ids).Draw(m.T, "of")
	}
	if rapid.Bool().Draw(m.T, "left out") {
		head.LeftOut = []history.LeftOut{{Kind: "attachment_stripped", Detail: "1 (3 kB)"}}
	}
	m.ids = append(m.ids, msg.ID)
	return msg, head
}

func (m *model) came(*rapid.T) {
	msg, head := m.newMail()
	facts := []history.Fact{history.NewCame(msg, head)}
	if rapid.Bool().Draw(m.T, "answered at once") {
		facts = append(facts, history.Answered{ID: msg.ID, To: msg.Recipients, Reply: "250 2.0.0 queued " + msg.ID,
			Taken: rapid.Bool().Draw(m.T, "taken"), At: m.tick()})
	}
	m.note(facts...)
}

func (m *model) refused(*rapid.T) {
	if mail, ok := m.some(); ok {
		said := history.Answered{ID: mail.ID, Reply: rapid.SampledFrom([]string{"451 4.4.2 no", "550 5.7.1 no"}).Draw(m.T, "reply"), Each: rapid.Bool().Draw(m.T, "each"), At: m.tick()}
		for _, r := range mail.Recipients[:rapid.IntRange(0, len(mail.Recipients)).Draw(m.T, "of them")] {
			said.To = append(said.To, r.Addr)
		}
		m.note(said)
	}
}

func (m *model) tried(*rapid.T) {
	id, to, ok := m.someRecipient()
	if !ok {
		return
	}
	out := relay.Outcome{Kind: rapid.SampledFrom(relay.Kinds()).Draw(m.T, "kind"), Status: 200, Took: time.Second, Detail: "says of bob@example.net <no>"}
	if out.Kind == relay.Accepted {
		out.MessageID = fmt.Sprint("msg_", rapid.IntRange(0, 5).Draw(m.T, "n"))
	}
	m.note(history.Tried{ID: id, From: m.address("from"), To: to, Number: 1, Outcome: out, At: m.tick()})
}

func (m *model) gaveUp(*rapid.T) {
	if id, to, ok := m.someRecipient(); ok {
		m.note(history.GaveUp{ID: id, To: to, Why: "tried 7 times", At: m.tick()},
			history.Told{ID: id, Recipients: []string{to}, Bounce: rapid.SampledFrom([]string{"", "bounce"}).Draw(m.T, "bounce"), At: m.tick()})
	}
}

func (m *model) dropped(*rapid.T) {
	if id, to, ok := m.someRecipient(); ok {
		if rapid.Bool().Draw(m.T, "retried") {
			m.note(history.OperatorRetried{ID: id, To: to, At: m.tick()})
			return
		}
		m.note(history.OperatorDropped{ID: id, To: to, At: m.tick()})
	}
}

func (m *model) unknown(*rapid.T) {
	id, to, ok := m.someRecipient()
	if !ok {
		return
	}
	at := m.tick()
	m.must(m.b.MarkUnknown(m.Context(), id, strings.ToUpper(to), at))
	if mail := m.mails[id]; mail != nil {
		for i := range mail.Recipients {
			if r := &mail.Recipients[i]; key(r.Addr) == key(to) && r.State == history.Waiting {
				r.State, r.Ended = history.Unknown, at
			}
		}
	}
}

func (m *model) event(*rapid.T) {
	types := []string{"delivered", "opened", "bounced.hard", "bounced.soft", "complained", "unknown"}
	m.told++
	e := relay.Event{
		ID: fmt.Sprint("evt_", m.told), Type: rapid.SampledFrom(types).Draw(m.T, "type"), Email: m.address("email"),
		MessageID: fmt.Sprint("msg_", rapid.IntRange(0, 5).Draw(m.T, "n")), Created: m.tick(), Received: m.tick(), BounceCode: "550",
	}
	m.must(m.b.AddEvent(e))
	m.events = append(m.events, e)
}

func (m *model) prune(*rapid.T) {
	force := rapid.Bool().Draw(m.T, "force")
	before := m.now.Add(-time.Duration(rapid.IntRange(0, 48).Draw(m.T, "hours")) * time.Hour)
	limit := rapid.IntRange(1, 5).Draw(m.T, "limit")
	var old []*history.Mail
	for _, mail := range m.mails {
		waits := slices.ContainsFunc(mail.Recipients, func(r history.Recipient) bool { return r.State == history.Waiting })
		if mail.Received.Before(before) && (force || !waits) {
			old = append(old, mail)
		}
	}
	slices.SortFunc(old, func(a, b *history.Mail) int {
		return cmp.Or(a.Received.Compare(b.Received), strings.Compare(a.ID, b.ID))
	})
	old = old[:min(len(old), limit)]
	n, err := m.b.Prune(m.Context(), before, limit, force)
	m.must(err)
	if n != len(old) {
		m.Fatalf("%d pruned, want %d", n, len(old))
	}
	for _, mail := range old {
		delete(m.mails, mail.ID)
	}
}

// check compares every mail.
func (m *model) check(*rapid.T) {
	for _, id := range m.ids {
		got, found, err := m.b.Get(m.Context(), id)
		m.must(err)
		want, wanted := m.mails[id]
		if found != wanted {
			m.Fatalf("%s is found: %v, want %v", id, found, wanted)
		}
		if !found {
			continue
		}
		w := m.withEvents(*want)
		slices.SortFunc(w.Recipients, func(a, b history.Recipient) int { return strings.Compare(key(a.Addr), key(b.Addr)) })
		if g, w := fmt.Sprintf("%+v", plain(got)), fmt.Sprintf("%+v", plain(w)); g != w {
			m.Fatalf("the record of %s is\n%s\nwant\n%s", id, g, w)
		}
	}
}

// plain has no pointers, so that it can be printed and compared.
func plain(m history.Mail) []string {
	lines := []string{fmt.Sprintf("%v %v %q %+v %q %v", m.ID, m.Received, m.Sender, m.Head, m.Reply, m.Answered)}
	for _, r := range m.Recipients {
		line := fmt.Sprint(r.Addr, r.Named, r.State, r.Ended, r.APIID)
		for _, s := range r.Steps {
			line += fmt.Sprint("; ", s.At, s.What, s.Text)
			if s.Attempt != nil {
				line += fmt.Sprintf(" %+v", *s.Attempt)
			}
			if s.Event != nil {
				line += " " + s.Event.Type
			}
		}
		lines = append(lines, line)
	}
	return lines
}

func (m *model) withEvents(mail history.Mail) history.Mail {
	mail.Recipients = slices.Clone(mail.Recipients)
	for i := range mail.Recipients {
		r := &mail.Recipients[i]
		r.Steps = slices.Clone(r.Steps)
		for _, e := range m.events {
			if e.MessageID == r.APIID {
				at := e.Created
				// The first of the attempts that the API answered with this id is
				// when it took the mail. By our clock where the provider's says
				// that the event was before that.
				first := slices.IndexFunc(r.Steps, func(s history.Step) bool { return s.Attempt != nil && s.Attempt.MessageID == r.APIID })
				if first >= 0 && at.Before(r.Steps[first].At) {
					if at = e.Received; at.Before(r.Steps[first].At) {
						at = r.Steps[first].At
					}
				}
				r.Steps = append(r.Steps, history.Step{At: at, What: history.StepEvent, Event: &history.Event{Type: e.Type}})
				r.State = r.State.After(e.Type)
			}
		}
		slices.SortStableFunc(r.Steps, func(a, b history.Step) int { return a.At.Compare(b.At) })
	}
	return mail
}

// takenTwice: an operator has a mail sent again and the API, which knows the
// idempotency key, answers with the message_id of the first time. It has had
// the mail since then, so events that follow the first answer keep their times.
func takenTwice(t *testing.T, b Backend) {
	at := time.UnixMilli(1_800_000_000_000).UTC()
	after := func(minutes int) time.Time { return at.Add(time.Duration(minutes) * time.Minute) }
	msg := &relay.Message{ID: relay.NewID(at), ReceivedAt: at, From: "shop@example.com", Recipients: []string{"bob@example.net"}}
	tried := func(minutes int) history.Tried {
		return history.Tried{ID: msg.ID, From: msg.From, To: msg.Recipients[0], Number: 1, At: after(minutes),
			Outcome: relay.Outcome{Kind: relay.Accepted, Status: 200, MessageID: "msg_1"}}
	}
	gaveUp := history.GaveUp{ID: msg.ID, To: msg.Recipients[0], Why: "dropped and sent again", At: after(30)}
	facts := []history.Fact{history.NewCame(msg, history.Head{}), tried(10), gaveUp, tried(60)}
	if err := b.Write(t.Context(), history.Changes(facts...)); err != nil {
		t.Fatal(err)
	}
	for _, e := range []relay.Event{
		{ID: "evt_1", Type: "bounced.soft", Created: after(20), Received: after(21)},
		{ID: "evt_2", Type: "early", Created: after(5), Received: after(12)},
		{ID: "evt_3", Type: "earlier", Created: after(5), Received: after(8)},
	} {
		e.MessageID, e.Email = "msg_1", msg.Recipients[0]
		if err := b.AddEvent(e); err != nil {
			t.Fatal(err)
		}
	}
	mail, found, err := b.Get(t.Context(), msg.ID)
	if err != nil || !found {
		t.Fatal(found, err)
	}
	var got []string
	for _, s := range mail.Recipients[0].Steps {
		what := string(s.What)
		if s.Event != nil {
			what = s.Event.Type
		}
		got = append(got, fmt.Sprint(what, " ", s.At.Sub(at)))
	}
	want := []string{"tried 10m0s", "earlier 10m0s", "early 12m0s", "bounced.soft 20m0s", "gave_up 30m0s", "tried 1h0m0s"}
	if !slices.Equal(got, want) {
		t.Errorf("the steps are %q, want %q", got, want)
	}
}
