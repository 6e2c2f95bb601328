package intake

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/smtp2rest/smtp2rest/relay"
	"github.com/smtp2rest/smtp2rest/relay/provider"
	"github.com/smtp2rest/smtp2rest/smtpd/reply"
)

// fakeMarks are marks in memory. They may fail.
type fakeMarks struct {
	mu     sync.Mutex
	values map[string]string
	err    error
}

func newFakeMarks() *fakeMarks { return &fakeMarks{values: map[string]string{}} }

func (f *fakeMarks) Marks(_ context.Context, prefix string) (map[string]string, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	list := map[string]string{}
	for name, value := range f.values {
		if strings.HasPrefix(name, prefix) {
			list[name] = value
		}
	}
	return list, f.err
}

func (f *fakeMarks) SetMark(_ context.Context, name, value string) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.err != nil {
		return f.err
	}
	if value == "" {
		delete(f.values, name)
	} else {
		f.values[name] = value
	}
	return nil
}

func (f *fakeMarks) names() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Sorted(maps.Keys(f.values))
}

// sendResent is sendMail with a mail that can be recognised.
func (r *rig) sendResent(to ...string) *reply.Reply {
	r.t.Helper()
	return r.send(r.t.Context(), withID, "shop@sandbox.example", to...)
}

func (r *rig) wantAccepted(want map[string]int) {
	r.t.Helper()
	for to, n := range want {
		if got := r.box.AcceptedFor(to); got != n {
			r.t.Errorf("%s got %d mails, want %d", to, got, n)
		}
	}
}

// keysOf returns the idempotency keys of the calls for a recipient.
func (r *rig) keysOf(to string) map[string]bool {
	keys := map[string]bool{}
	for _, c := range r.box.Calls() {
		if c.To == to {
			keys[c.IdempotencyKey] = true
		}
	}
	return keys
}

// A recipient may be found to be suppressed after the client hung up. It is refused at
// RCPT when the mail comes again, and the others get no second copy because of that.
func TestWhoWasSuppressedMeanwhileChangesNothingForTheOthers(t *testing.T) {
	r := newRig(t, plan{timeout: patience})
	addr := r.listen()
	submit(t, addr, withID, slow+" suppressed@example.net", true)
	r.waitFor("the mail and the bounce are sent", func() bool { return r.box.Stats().Accepted == 2 })
	r.waitFor("the client is known to be gone", func() bool { return r.recall.size() == 2 })
	if got := submit(t, addr, withID, slow+" suppressed@example.net", false); !strings.HasPrefix(got, "250 2.0.0 accepted") {
		t.Errorf("the same mail again: %q", got)
	}
	r.wantAccepted(map[string]int{slow: 1, "shop@sandbox.example": 1})
}

// If the answer to a call was lost, the recipient may have the mail. When the client
// comes again, it is tried with the same key.
func TestAResendUsesTheSameKey(t *testing.T) {
	r := newRig(t, plan{})
	compare(t, r.sendResent("lost+1@example.net"), isDown)
	compare(t, r.sendResent("lost+1@example.net"), acceptedIt)
	if n := len(r.keysOf("lost+1@example.net")); n != 1 {
		t.Errorf("%d keys", n)
	}
	if n := r.recall.size(); n != 0 {
		t.Errorf("%d are remembered in the end", n)
	}
}

// A mail that nobody can have is a new one when it comes again. It costs no memory in
// an outage.
func TestAMailThatNobodyHasIsNotRemembered(t *testing.T) {
	marks := newFakeMarks()
	r := newRig(t, plan{})
	r.opt.Marks = marks
	compare(t, r.sendResent("down+1@example.net", "invalid@example.net"), isDown)
	if n := r.recall.size(); n != 0 || len(marks.names()) != 0 {
		t.Errorf("%d are remembered, %v", n, marks.names())
	}
}

// A mail without a Message-ID cannot be told from one that is equal on purpose, so
// some of its recipients get it twice.
func TestAResendWithoutAMessageID(t *testing.T) {
	r := newRig(t, plan{})
	compare(t, r.sendMail("bob@example.net", "down+1@example.net"), isDown)
	compare(t, r.sendMail("bob@example.net", "down+1@example.net"), `250 2\.0\.0 accepted .*`)
	r.wantAccepted(map[string]int{"bob@example.net": 2})
}

// If a resend fails before anything is tried, what was known is kept.
func TestAResendThatFailsEarlyForgetsNothing(t *testing.T) {
	marks := newFakeMarks()
	r := newRig(t, plan{})
	r.opt.Marks = marks
	compare(t, r.sendResent("bob@example.net", "down+1@example.net"), isDown)
	m := copyFor("bob@example.net", "down+1@example.net")
	m.From, m.Raw = "shop@sandbox.example", []byte(withID)
	h, env := newHandling(m), envelope(m.From)
	known, err := r.recall.begin(t.Context(), h, func() digest { return digestOf(m) })
	if err != nil || len(known) != 2 {
		t.Fatalf("known: %v, %v", known, err)
	}
	h.mail, h.replies = digestOf(m), forAll(reply.MemorySpent())
	h.finish(&transaction{message: m, before: known, handling: h})
	r.end(h, env)
	r.mark(t.Context(), h.mail)
	if names := marks.names(); len(names) != 1 {
		t.Errorf("the marks are %v", names)
	}
	compare(t, r.sendResent("bob@example.net", "down+1@example.net"), `250 2\.0\.0 accepted `+known["bob@example.net"].id+`\..*`)
	r.wantAccepted(map[string]int{"bob@example.net": 1, "down+1@example.net": 1})
	if names := marks.names(); len(names) != 0 {
		t.Errorf("marks in the end: %v", names)
	}
}

// panicking is a queue with a bug.
type panicking struct{ Queue }

func (panicking) Keep(context.Context, ...relay.Remainder) error { panic("a bug") }

// After a panic, when some recipients have the mail, the reply is 421, and the next
// copy continues from there.
func TestAResendAfterAPanic(t *testing.T) {
	r := newRig(t, plan{queue: panicking{}})
	func() {
		defer func() { _ = recover() }()
		r.sendResent("bob@example.net", "down+1@example.net")
		t.Error("no panic: this test proves nothing")
	}()
	r.opt.Queue = NoQueue{}
	compare(t, r.sendResent("bob@example.net", "down+1@example.net"), `250 2\.0\.0 accepted .*`)
	r.wantAccepted(map[string]int{"bob@example.net": 1, "down+1@example.net": 1})
}

// slowAPI loses its first answer for a recipient, and is slow with the second.
type slowAPI struct {
	who   string
	free  chan struct{} // closed when it may answer
	mu    sync.Mutex
	calls map[string]int
}

func (a *slowAPI) Send(_ context.Context, r provider.Request) relay.Outcome {
	a.mu.Lock()
	a.calls[r.To]++
	n := a.calls[r.To]
	a.mu.Unlock()
	if r.To == a.who && n == 1 {
		return relay.Outcome{Kind: relay.Ambiguous}
	}
	if r.To == a.who {
		<-a.free
	}
	return relay.Outcome{Kind: relay.Accepted, MessageID: "msg_1"}
}

// Copies that come while one is in progress wait for it.
func TestResendsAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		api := &slowAPI{who: "eve@example.net", free: make(chan struct{}), calls: map[string]int{}}
		o := playedOptions()
		o.Attempts = attemptsAt(api, o)
		in := New(o)
		hand := func() *reply.Reply {
			return in.Message(context.Background(), envelope("shop@sandbox.example", "bob@example.net", "eve@example.net"), []byte(withID))
		}
		compare(t, hand(), isDown)
		const copies = 5
		replies := make(chan *reply.Reply, copies)
		for range copies {
			go func() { replies <- hand() }()
		}
		synctest.Wait()
		close(api.free)
		for range copies {
			compare(t, <-replies, `250 2\.0\.0 accepted .*`)
		}
		if api.calls["bob@example.net"] != 1 || api.calls["eve@example.net"] != 2 {
			t.Errorf("calls: %v", api.calls)
		}
	})
}

// What an earlier copy was taken for is not queued again. If some of a mail is in the
// queue, the next copy gets its own id, because the queue takes one mail by one id.
func TestACopyForMoreThanBefore(t *testing.T) {
	q := &fakeQueue{}
	r := newRig(t, plan{queue: q})
	m := copyFor("later@example.net")
	m.From = "shop@sandbox.example"
	h := took(m, "q1")
	r.recall.rememberLost(digestOf(m), h)
	got := r.sendResent("later@example.net", "down@example.net")
	compare(t, got, keptIt)
	if q.kept() != 1 || !slices.Equal(q.rest[0].Message.Recipients, []string{"down@example.net"}) || relay.FirstID(q.rest[0].Message.ID) == "q1" {
		t.Errorf("the queue keeps %+v", q.rest)
	}
	if n := len(r.keysOf("later@example.net")); n != 0 {
		t.Error("who is in the queue is sent to")
	}
}

// If some addresses of an alias have a mail, over LMTP it comes again for that alias
// alone.
func TestAnAliasThatIsReachedInPart(t *testing.T) {
	r := newAliasRig(t, map[string]string{"both@x": "bob@example.net down+1@example.net"}, NoQueue{})
	got := r.sendEach(withID, "eve@example.net", "both@x")
	compare(t, got[0], acceptedIt)
	compare(t, got[1], isDown)
	got = r.sendEach(withID, "both@x")
	compare(t, got[0], `250 2\.0\.0 accepted .*`)
	r.wantAccepted(map[string]int{"eve@example.net": 1, "bob@example.net": 1, "down+1@example.net": 1})
}

// Two aliases whose addresses are refused in part get one bounce, beside a recipient
// that cannot be queued.
func TestOneBounceForSeveralAliases(t *testing.T) {
	r := newAliasRig(t, map[string]string{"more@x": "eve@example.net suppressed+2@example.net"}, NoQueue{})
	got := r.sendEach(aMail, "half@x", "more@x", "down@example.net")
	compare(t, got[0], `250 2\.0\.0 accepted `+queueID+` except <half@x>`)
	compare(t, got[1], `250 2\.0\.0 accepted `+queueID+` except <more@x>`)
	compare(t, got[2], isDown)
	b := r.callTo("shop@sandbox.example")
	if r.box.AcceptedFor("shop@sandbox.example") != 1 || !strings.Contains(b.Text, "<suppressed@example.net>") || !strings.Contains(b.Text, "<suppressed+2@example.net>") {
		t.Errorf("the bounce says %s", b.Text)
	}
}

// If a mark cannot be written, mail is still recognised until a restart.
func TestAMarkThatCannotBeWritten(t *testing.T) {
	marks := newFakeMarks()
	marks.err = errors.New("no space left on device")
	r := newRig(t, plan{})
	r.opt.Marks = marks
	compare(t, r.sendResent("bob@example.net", "down+1@example.net"), isDown)
	compare(t, r.sendResent("bob@example.net", "down+1@example.net"), `250 2\.0\.0 accepted .*`)
	r.wantAccepted(map[string]int{"bob@example.net": 1})
	if n := len(r.lines("cannot store which recipients have a mail that the client is to send again; a restart will forget it")); n != 2 {
		t.Errorf("the log says so %d times", n)
	}
}

// A start reads the marks. It removes those that are too old or malformed.
func TestRestore(t *testing.T) {
	marks := newFakeMarks()
	r := newRig(t, plan{})
	r.opt.Marks = marks
	compare(t, r.sendResent("Bob@example.net", "down+1@example.net", "invalid@example.net"), isDown)
	names := marks.names()
	if len(names) != 1 {
		t.Fatalf("the marks are %v", names)
	}
	value := marks.values[names[0]]
	for name, bad := range map[string]string{
		"old":     strings.Replace(value, time.Now().UTC().Format("2006-01-02"), "2020-01-01", 1),
		"garbage": "1", "empty": `{}`,
	} {
		marks.values[markName(digest([]byte(fmt.Sprintf("%32s", name))))] = bad
	}
	marks.values[resendMarks+"short"] = value
	ahead := markName(digest{})
	marks.values[ahead] = strings.Replace(value, time.Now().UTC().Format("2006"), "2999", 1)

	next := &rig{Intake: New(r.opt), t: t, box: r.box, suppressions: r.suppressions, log: r.log}
	if err := next.Restore(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := marks.names(); !slices.Equal(got, []string{ahead, names[0]}) {
		t.Errorf("the marks are %v", got)
	}
	compare(t, next.sendResent("Bob@example.net", "down+1@example.net", "invalid@example.net"), `250 2\.0\.0 accepted .* except <invalid@example\.net>`)
	r.wantAccepted(map[string]int{"Bob@example.net": 1, "down+1@example.net": 1, "shop@sandbox.example": 1})
	if n := r.box.Stats().ByStatus[422]; n != 1 {
		t.Errorf("the API was asked %d times about who it refuses", n)
	}
	next.recall.forget(time.Now().Add(partlyTime))
	if n := next.recall.size(); n != 0 {
		t.Errorf("%d are remembered after a day", n)
	}
	marks.err = errors.New("broken")
	if err := next.Restore(t.Context()); err == nil {
		t.Error("marks that cannot be read go unnoticed")
	}
}

// Marks are bounded like memory: what is forgotten loses its mark soon.
func TestMarksAreBounded(t *testing.T) {
	marks := newFakeMarks()
	r := newRig(t, plan{})
	r.opt.Marks = marks
	const more = 500 // mails: as many are forgotten, and their marks removed
	for i := range recallMost/2 + more {
		m := &relay.Message{ID: fmt.Sprint(i), Recipients: []string{"a@b", "c@d"}, Raw: fmt.Appendf(nil, "Message-ID: %d\r\n\r\n", i)}
		h := newHandling(m)
		h.mail, h.replies = digestOf(m), forAll(reply.APIUnavailable())
		h.record(relay.Remainder{Message: m, Outcomes: []relay.Outcome{{Kind: relay.Accepted}, {Kind: relay.Unavailable}}}, h.replies.main(), nil)
		r.end(h, envelope("a@b"))
		if i < more || i >= recallMost/2 { // each mark takes the longer, the more is remembered
			r.mark(t.Context(), h.mail)
		}
	}
	if n := len(marks.names()); n > more || r.recall.size() != recallMost || len(r.recall.stale) > staleAtOnce {
		t.Errorf("%d marks, %d remembered, %d stale", n, r.recall.size(), len(r.recall.stale))
	}
}

// The queue takes a second mail by the same id for the first one, and forgets it.
// Recipients of one mail that come again one by one must not meet there.
func TestCopiesDoNotMeetInTheQueue(t *testing.T) {
	q := &fakeQueue{err: errors.New("full")}
	r := newRig(t, plan{queue: q})
	compare(t, r.sendResent("bob@example.net", "down@example.net", "down+9@example.net"), isFull)
	q.err = nil
	compare(t, r.sendResent("down@example.net"), keptIt)
	compare(t, r.sendResent("down+9@example.net"), keptIt)
	if q.kept() != 2 || q.rest[0].Message.ID == q.rest[1].Message.ID {
		t.Errorf("the queue is given %s and %s", q.rest[0].Message.ID, q.rest[1].Message.ID)
	}
}

// bounceQueue has room for mail of which nothing but the bounce is left.
type bounceQueue struct{ fakeQueue }

func (q *bounceQueue) Keep(ctx context.Context, parts ...relay.Remainder) error {
	for _, r := range parts {
		if tallyOf(r.Outcomes).unsettled > 0 && q.err != nil {
			return q.err
		}
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	q.rest = append(q.rest, parts...)
	return nil
}

// An id of the queue is never the beginning of another: an operator who drops one
// mail by its id would drop the other.
func TestNoIDIsTheBeginningOfAnother(t *testing.T) {
	q := &bounceQueue{fakeQueue{err: errors.New("full")}}
	r := newAliasRig(t, nil, q)
	got := r.sendEach(withID, "half@x", "lost+1@example.net")
	compare(t, got[0], `250 2\.0\.0 accepted `+queueID+` except <half@x>`)
	compare(t, got[1], isFull)
	q.err = nil
	r.EndCalls()
	compare(t, r.sendEach(withID, "lost+1@example.net")[0], keptIt)
	if q.kept() != 2 {
		t.Fatalf("%d are kept", q.kept())
	}
	one, other := q.rest[0].Message.ID, q.rest[1].Message.ID
	if relay.FirstID(one) != relay.FirstID(other) || strings.HasPrefix(one, other) || strings.HasPrefix(other, one) {
		t.Errorf("the queue is given %s and %s", one, other)
	}
}

// A recipient that is being tried again stays in the mark until that is over: the
// process may die meanwhile.
func TestTheMarkHasWhoIsBeingTried(t *testing.T) {
	rc, m := newRecall(), copyFor("c@d", "e@f")
	mail := digestOf(m)
	for _, to := range m.Recipients {
		rc.put(mail, to, memory{end: end{id: "q1", owed: true, Outcome: relay.Outcome{Kind: relay.Ambiguous}}})
	}
	before := rc.mark(mail)
	if _, err := rc.begin(t.Context(), newHandling(copyFor("c@d")), func() digest { return mail }); err != nil {
		t.Fatal(err)
	}
	var was, is mark
	if json.Unmarshal([]byte(before), &was) != nil || json.Unmarshal([]byte(rc.mark(mail)), &is) != nil {
		t.Fatalf("the mark was %q, and is %q", before, rc.mark(mail))
	}
	slices.SortFunc(is.To, func(a, b markedTo) int { return strings.Compare(a.Addr, b.Addr) })
	if len(was.To) != 2 || !slices.Equal(is.To, was.To) {
		t.Errorf("the mark was %q, and is %q", before, rc.mark(mail))
	}
}
