package queuetest

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/smtp2rest/smtp2rest/relay/queue"
)

// model is the contract as a program: a slice and the plainest code. It is
// compared with the backend over random histories.
type model struct {
	*suite
	rt         *rapid.T
	recipients []*modelRecipient // in order of arrival
	tokens     []queue.Token     // all that were ever given out
}

type modelRecipient struct {
	mail    queue.Mail
	number  int
	state   queue.State
	ended   time.Time // when it was sent or given up
	due     time.Time
	hold    bool
	tries   int
	fence   int64
	settled bool // the latest claim was
	bounced bool
}

func (r *modelRecipient) id() string { return r.mail.Message.ID }

// lane is what round robin goes by.
func (r *modelRecipient) lane() string { return fmt.Sprint(r.mail.Lane, r.mail.Urgent) }

// claimable: waiting and due.
func (r *modelRecipient) claimable(now time.Time) bool {
	return r.state == queue.Waiting && !r.due.After(now)
}

func runModel(t *testing.T, open func(t TB) Backend) {
	rapid.Check(t, func(rt *rapid.T) {
		m := &model{suite: newSuite(rt, open(rt), queue.Options{}), rt: rt}
		defer m.end()
		rt.Repeat(map[string]func(*rapid.T){
			"enqueue": m.enqueue,
			"claim":   m.claimSome,
			"settle":  m.settleOne,
			"time":    m.passTime,
			"hold":    m.holdSome,
			"release": m.releaseSome,
			"retry":   m.retrySome,
			"move":    m.reassignSome,
			"drop":    m.dropSome,
			"bounce":  m.bounceAll,
			"purge":   m.purgeFailed,
			"restart": m.restart,
			"":        m.check,
		})
	})
}

func (m *model) enqueue(t *rapid.T) {
	lane := rapid.SampledFrom([]string{"a@x", "b@x", "c@y", ""}).Draw(t, "lane")
	mail := m.mail(lane)
	mail.Urgent = rapid.IntRange(0, 4).Draw(t, "urgent") == 0
	mail.Message.Account = drawAccount(t)
	for n := range rapid.IntRange(1, 3).Draw(t, "recipients") {
		r := queue.Recipient{Addr: fmt.Sprintf("%d@r", n)}
		if rapid.IntRange(0, 3).Draw(t, "delayed") == 0 {
			r.Due = m.now.Add(time.Duration(rapid.IntRange(1, 90).Draw(t, "delay")) * time.Second)
		}
		mail.Recipients = append(mail.Recipients, r)
	}
	m.must(m.Enqueue(m.ctx, mail))
	for n, r := range mail.Recipients {
		m.recipients = append(m.recipients, &modelRecipient{mail: mail, number: n, due: r.Due, settled: true})
	}
}

func drawAccount(t *rapid.T) string {
	return rapid.SampledFrom([]string{"", "", "shop", "news"}).Draw(t, "account")
}

func (m *model) find(id string, number int) *modelRecipient {
	for _, r := range m.recipients {
		if r.id() == id && r.number == number {
			return r
		}
	}
	return nil
}

func (m *model) claimSome(t *rapid.T) {
	account := drawAccount(t)
	max := rapid.IntRange(1, 6).Draw(t, "max")
	var over []string
	for len(m.recipients) > 0 && rapid.IntRange(0, 2).Draw(t, "pass over") == 0 {
		over = append(over, rapid.SampledFrom(m.recipients).Draw(t, "mail").id())
	}
	want := map[string][]*modelRecipient{} // by lane, oldest first
	total := 0
	for _, r := range m.recipients {
		if r.mail.Message.Account == account && r.claimable(m.now) && !slices.Contains(over, r.id()) {
			want[r.lane()] = append(want[r.lane()], r)
			total++
		}
	}
	claims, err := m.Claim(m.ctx, queue.ClaimRequest{Account: account, Now: m.now, Max: max, PassOver: over,
		Latest: rapid.Bool().Draw(t, "latest")})
	m.must(err)
	m.equal("number of claims", len(claims), min(max, total))
	got := map[string]int{}
	for _, c := range claims {
		r := m.find(c.Token.Mail, c.Token.Recipient)
		if r == nil {
			m.Fatalf("claimed what is not there: %+v", c)
		}
		lane := r.lane()
		if got[lane] == len(want[lane]) || want[lane][got[lane]] != r {
			m.Fatalf("lane %s: recipient %s/%d is not its next", lane, r.id(), r.number)
		}
		got[lane]++
		if c.Unknown == r.settled || c.Attempt != r.tries+1 || c.Token.Fence <= r.fence {
			m.Fatalf("claim %+v of %+v", c, r)
		}
		r.state, r.settled, r.hold = queue.Claimed, false, false
		r.tries++
		r.fence = c.Token.Fence
		m.tokens = append(m.tokens, c.Token)
	}
	for lane, n := range got {
		for other, all := range want {
			if n > got[other]+1 && got[other] < len(all) {
				m.Fatalf("lane %s got %d turns, %s only %d of %d", lane, n, other, got[other], len(all))
			}
		}
	}
}

func (m *model) settleOne(t *rapid.T) {
	if len(m.tokens) == 0 {
		t.Skip("nothing was claimed")
	}
	token := rapid.SampledFrom(m.tokens).Draw(t, "token")
	x := queue.Settlement{Token: token, At: m.now,
		Result: rapid.SampledFrom([]queue.Result{queue.Done, queue.Later, queue.GaveUp}).Draw(t, "result")}
	if x.Result == queue.Later {
		x.Due = m.now.Add(time.Duration(rapid.IntRange(0, 90).Draw(t, "delay")) * time.Second)
		x.NotAnAttempt = rapid.Bool().Draw(t, "not an attempt")
	}
	err := m.Settle(m.ctx, x)
	r := m.find(token.Mail, token.Recipient)
	if r == nil || r.fence != token.Fence {
		m.wantErr(err, queue.ErrStale)
		return
	}
	m.must(err)
	if r.settled {
		return
	}
	r.settled, r.ended = true, m.now
	switch x.Result {
	case queue.Done:
		r.state = queue.Sent
	case queue.GaveUp:
		r.state = queue.Failed
	case queue.Later:
		if r.hold || r.state == queue.Held {
			r.state = queue.Held
		} else {
			r.state = queue.Waiting
		}
		r.due = x.Due
		if x.NotAnAttempt {
			r.tries--
		}
	}
	r.hold = false
}

func (m *model) passTime(t *rapid.T) {
	m.now = m.now.Add(time.Duration(rapid.IntRange(1, 100).Draw(t, "seconds")) * time.Second)
}

// some draws a filter, and returns it with what it selects.
func (m *model) some(t *rapid.T) (queue.Filter, []*modelRecipient) {
	var f queue.Filter
	if len(m.recipients) > 0 && rapid.IntRange(0, 5).Draw(t, "all") > 0 {
		f.ID = rapid.SampledFrom(m.recipients).Draw(t, "mail").id()
	}
	if rapid.Bool().Draw(t, "by state") {
		f.States = []queue.State{rapid.SampledFrom(queue.States()).Draw(t, "state")}
	}
	var selected []*modelRecipient
	for _, r := range m.recipients {
		if (f.ID == "" || r.id() == f.ID) && (f.States == nil || f.States[0] == r.state) {
			selected = append(selected, r)
		}
	}
	return f, selected
}

// endClaims is what becomes of claims when their owner is gone.
func (m *model) endClaims() {
	for _, r := range m.recipients {
		if r.state != queue.Claimed {
			continue
		}
		r.state, r.due = queue.Waiting, time.Time{}
		if r.hold {
			r.state, r.hold = queue.Held, false
		}
	}
}

func (m *model) holdSome(t *rapid.T) {
	f, selected := m.some(t)
	want := 0
	for _, r := range selected {
		switch r.state {
		case queue.Waiting:
			r.state = queue.Held
			want++
		case queue.Claimed:
			r.hold = true
			want++
		}
	}
	n, err := m.Hold(m.ctx, f)
	m.applied(n, err, want)
}

func (m *model) releaseSome(t *rapid.T) {
	f, selected := m.some(t)
	want := 0
	for _, r := range selected {
		switch {
		case r.state == queue.Held:
			r.state = queue.Waiting
			want++
		case r.state == queue.Claimed && r.hold:
			r.hold = false
			want++
		}
	}
	n, err := m.Release(m.ctx, f)
	m.applied(n, err, want)
}

func (m *model) retrySome(t *rapid.T) {
	f, selected := m.some(t)
	want := 0
	for _, r := range selected {
		switch r.state {
		case queue.Waiting:
			r.due = m.now
			want++
		case queue.Failed:
			r.state, r.due, r.tries = queue.Waiting, m.now, 0
			want++
		}
	}
	n, err := m.Retry(m.ctx, f, m.now)
	m.applied(n, err, want)
}

func (m *model) reassignSome(t *rapid.T) {
	f, selected := m.some(t)
	account := drawAccount(t)
	moved := map[string]bool{}
	for _, r := range selected {
		if r.state != queue.Sent && r.mail.Message.Account != account {
			moved[r.id()] = true
		}
	}
	for _, r := range m.recipients {
		if moved[r.id()] {
			r.mail.Message.Account = account
		}
	}
	n, err := m.Reassign(m.ctx, f, account)
	m.applied(n, err, len(moved))
}

func (m *model) dropSome(t *rapid.T) {
	f, selected := m.some(t)
	want := 0
	for _, r := range selected {
		if r.state == queue.Sent {
			continue
		}
		want++
		for i := range m.recipients {
			if m.recipients[i] == r {
				m.recipients = append(m.recipients[:i:i], m.recipients[i+1:]...)
				break
			}
		}
	}
	n, err := m.Drop(m.ctx, f)
	m.applied(n, err, want)
}

func (m *model) bounceAll(t *rapid.T) {
	want := map[string]bool{}
	open := map[string]bool{}
	for _, r := range m.recipients {
		open[r.id()] = open[r.id()] || r.state.Open()
	}
	for _, r := range m.recipients {
		if r.state == queue.Failed && !r.bounced && !open[r.id()] {
			want[fmt.Sprint(r.id(), r.number)] = true
			r.bounced = true
		}
	}
	bounces, err := m.BouncesDue(m.ctx, m.now, 1000*time.Hour, 1000)
	m.must(err)
	got := map[string]bool{}
	for _, b := range bounces {
		var numbers []int
		for _, r := range b.Failed {
			numbers = append(numbers, r.Number)
			got[fmt.Sprint(b.Mail.Message.ID, r.Number)] = true
		}
		m.must(m.Bounced(m.ctx, b.Mail.Message.ID, numbers, nil))
	}
	m.equal("bounces", got, want)
}

// purgeFailed removes what failed before some time: all of a mail, and only when all of it
// is at its end and the sender needs no word any more.
func (m *model) purgeFailed(t *rapid.T) {
	before := m.now.Add(-time.Duration(rapid.IntRange(0, 100).Draw(t, "seconds")) * time.Second)
	failed, stays := map[string]bool{}, map[string]bool{}
	for _, r := range m.recipients {
		failed[r.id()] = failed[r.id()] || r.state == queue.Failed
		stays[r.id()] = stays[r.id()] || r.state.Open() || !r.ended.Before(before) || r.state == queue.Failed && !r.bounced
	}
	var left []*modelRecipient
	gone := map[string]bool{}
	for _, r := range m.recipients {
		if failed[r.id()] && !stays[r.id()] {
			gone[r.id()] = true
			continue
		}
		left = append(left, r)
	}
	m.recipients = left
	total, limit := 0, rapid.IntRange(1, 3).Draw(t, "limit")
	for n := 1; n > 0; total += n {
		var err error
		n, err = m.PurgeFailed(m.ctx, before, limit)
		m.must(err)
	}
	m.equal("mails removed", total, len(gone))
}

func (m *model) restart(t *rapid.T) {
	if rapid.IntRange(0, 3).Draw(t, "seldom") > 0 {
		t.Skip("it takes long")
	}
	m.reopen()
	m.endClaims()
	m.claimSome(t)
}

// check compares what can be seen after every step.
func (m *model) check(*rapid.T) {
	counts := map[queue.State]int64{}
	mails, open := map[string]bool{}, map[string]bool{} // whose content is kept, and for what
	unbounced := int64(0)
	for _, r := range m.recipients {
		counts[r.state]++
		if r.state != queue.Sent {
			mails[r.id()] = true
			open[r.id()] = open[r.id()] || r.state.Open()
		}
		if r.state == queue.Failed && !r.bounced {
			unbounced++
		}
	}
	st, err := m.Stats(m.ctx)
	m.must(err)
	for _, state := range queue.States() {
		if st.Recipients[state] != counts[state] {
			m.Fatalf("%d %s, want %d", st.Recipients[state], state, counts[state])
		}
	}
	failed := int64(0)
	for id := range mails {
		if !open[id] {
			failed++
		}
	}
	m.equal("mails, failed, unbounced", fmt.Sprint(st.Mails, st.FailedMails, st.Unbounced), fmt.Sprint(len(mails), failed, unbounced))
	entries, next, err := m.List(m.ctx, queue.Filter{Limit: 1000})
	m.must(err)
	if next != "" || len(entries) != len(m.recipients) {
		m.Fatalf("%d entries (next %q), want %d", len(entries), next, len(m.recipients))
	}
	for i, r := range m.recipients {
		e := entries[i]
		if e.Mail.Message.ID != r.id() || e.Recipient.Number != r.number || e.Recipient.State != r.state || e.Recipient.Attempts != r.tries {
			m.Fatalf("entry %d: %+v, want %+v", i, e, r)
		}
	}
}
