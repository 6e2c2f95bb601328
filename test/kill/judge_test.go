package kill

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/smtp2rest/smtp2rest/relay/attempt"
	"github.com/smtp2rest/smtp2rest/relay/queue"
)

// drain lets one more life, or two, finish everything, and ends it orderly.
// What is owed is first what was answered 250, then what else is found to be
// in the queue: mails whose client was not told any more.
func (rig *killRig) drain() {
	rig.t.Helper()
	rig.provider.delay(rig.t, 0)
	rig.accounts.mend(rig)
	r := rig.awaitStart("10s")
	rig.closeTickets()
	rig.clients.Wait()
	var owed []string
	for _, m := range rig.kept {
		owed = append(owed, m.owed()...)
	}
	for range 3 {
		if missing := rig.provider.await(slices.Clone(owed)); len(missing) > 0 {
			rig.fail("lost: nothing came for %d of %d recipients whose mail was answered 250 or found in the queue, such as %s",
				len(missing), len(owed), missing[0])
		}
		rig.terminate(r)
		if owed = rig.left(); len(owed) == 0 {
			return
		}
		r = rig.awaitStart("10s")
	}
	rig.fail("the queue does not drain: %v", owed)
}

func (rig *killRig) awaitStart(wait string) *killRelay {
	rig.t.Helper()
	r := rig.start(wait)
	if !rig.ready(r, time.After(30*time.Second)) {
		rig.fail("life %d does not listen", r.life)
	}
	return r
}

// terminate ends a life as an operator does, and holds it to what that means:
// it says that all is well, and no attempt of its is left unsettled.
func (rig *killRig) terminate(r *killRelay) {
	rig.t.Helper()
	rig.end(r, syscall.SIGTERM)
	if r.err != nil {
		rig.fail("life %d ended with %v after SIGTERM", r.life, r.err)
	}
	rig.look(r)
	rig.provider.mu.Lock()
	defer rig.provider.mu.Unlock()
	life := strconv.Itoa(r.life)
	for to, s := range rig.provider.seen {
		if rig.unknown[r.life][s.key] && slices.ContainsFunc(s.calls, func(c killCall) bool { return c.life == life }) {
			rig.t.Errorf("life %d ended in order and left an attempt at %s unsettled", r.life, to)
		}
	}
}

// left is what is still to be sent after the relay ended, which must be known
// to somebody: a mail answered 250 or never answered.
func (rig *killRig) left() []string {
	store := rig.open(rig.data)
	defer rig.close(store)
	stats, err := store.Stats(context.Background())
	if err != nil {
		rig.t.Fatal(err)
	}
	var open []string
	filter := queue.Filter{States: []queue.State{queue.Waiting, queue.Claimed, queue.Held}, Limit: 1000}
	for {
		page, next, err := store.List(context.Background(), filter)
		if err != nil {
			rig.t.Fatal(err)
		}
		for _, e := range page {
			open = append(open, e.Recipient.Addr)
		}
		if filter.Cursor = next; next == "" {
			break
		}
	}
	if stats.Unbounced > 0 && len(open) == 0 {
		rig.t.Errorf("%d recipients failed without a bounce", stats.Unbounced)
	}
	return open
}

// killTally is what a run came to.
type killTally struct {
	recipients, delivered, twice, lost, unsettled int
}

// judge asserts what 250 and the idempotency key promise, and prints the
// counts.
func (rig *killRig) judge(rounds int) killTally {
	rig.t.Helper()
	p := rig.provider
	p.mu.Lock()
	defer p.mu.Unlock()
	var sum killTally
	for life := range rig.life {
		n := 0
		for key := range rig.unknown[life+1] {
			if !rig.unknown[life][key] {
				n++
			}
		}
		if most := killWorkers * (1 + len(rig.accounts.all())); n > most {
			rig.t.Errorf("life %d left %d attempts unsettled, and makes %d at once", life+1, n, most)
		}
		sum.unsettled += n
	}
	for _, m := range rig.kept {
		for n, to := range m.owed() {
			rig.judgeRecipient(m, n, to, &sum)
		}
	}
	var unreasoned []string
	for to, s := range p.seen {
		unreasoned = append(unreasoned, rig.unreasoned(to, s)...)
		p.bad = append(p.bad, rig.accounts.judge(to, s)...)
	}
	if len(unreasoned) > 0 {
		rig.t.Errorf("%d second copies without a reason, such as\n%s", len(unreasoned), strings.Join(unreasoned[:min(len(unreasoned), 20)], "\n"))
	}
	if bad := append(p.bad, rig.refused...); len(bad) > 0 {
		rig.t.Errorf("%d calls or replies that must not be, such as\n%s", len(bad), strings.Join(bad[:min(len(bad), 20)], "\n"))
	}
	rig.judgeLeftovers()
	stats := p.box.Stats()
	rig.t.Logf("%d rounds, %d lives: %d mails answered 250 (and %d handed over without an answer); "+
		"%d recipients, %d of them sent to; %d twice for a kill, %d for a lost answer; %d calls, %d attempts unsettled at a kill; seed %d",
		rounds, rig.life, len(rig.kept), len(rig.unknowns), sum.recipients, sum.delivered, sum.twice, sum.lost,
		stats.Calls, sum.unsettled, rig.seed)
	return sum
}

func (rig *killRig) judgeRecipient(m *killMail, n int, to string, sum *killTally) {
	sum.recipients++
	s := rig.provider.seen[to]
	times := s.acceptedCalls()
	if times == 0 {
		rig.t.Errorf("%s was answered %q and nothing came for %s", m.id, m.reply, to)
		return
	}
	sum.delivered++
	if times > 1 && strings.HasPrefix(to, "lost") {
		sum.lost++
	} else if times > 1 {
		sum.twice++
	}
	id := killQueueID(m.reply)
	if want := attempt.IdempotencyKey(id, to); s.key != want && to == m.to[n] {
		rig.provider.bad = append(rig.provider.bad, fmt.Sprintf("%s was answered %q, and %s was sent to with the key %s", m.id, m.reply, to, s.key))
	}
}

// unreasoned lists second copies for an address. One is allowed where the
// answer to the first was lost, or where the life that sent the first ended
// before it was settled.
func (rig *killRig) unreasoned(to string, s *killSeen) (all []string) {
	var before *killCall
	for _, c := range s.calls {
		if !c.accepted {
			continue
		}
		if before != nil && !before.lost {
			life, _ := strconv.Atoi(before.life)
			if c.life == before.life || !rig.unknown[life][s.key] {
				all = append(all, fmt.Sprintf("%s was sent to in life %s and again in life %s", to, before.life, c.life))
			}
		}
		before = &c
	}
	return all
}

// judgeLeftovers looks at what is on the disk when all is done.
func (rig *killRig) judgeLeftovers() {
	store := rig.open(rig.data)
	defer rig.close(store)
	stats, err := store.Stats(context.Background())
	if err != nil {
		rig.t.Fatal(err)
	}
	page, _, err := store.List(context.Background(), queue.Filter{States: []queue.State{queue.Failed}, Limit: 1000})
	if err != nil {
		rig.t.Fatal(err)
	}
	for _, e := range page {
		if !strings.HasPrefix(e.Recipient.Addr, "suppressed") {
			rig.t.Errorf("given up: %+v", e.Recipient)
		}
	}
	files, err := os.ReadDir(filepath.Join(rig.data, "spool"))
	if err != nil {
		rig.t.Fatal(err)
	}
	if int64(len(files)) > stats.Mails {
		rig.t.Errorf("%d spool files are left, for %d mails whose content is kept", len(files), stats.Mails)
	}
}
