package intake

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/smtp2rest/smtp2rest/internal/settings"
	"github.com/smtp2rest/smtp2rest/relay"
	"github.com/smtp2rest/smtp2rest/smtpd"
	"github.com/smtp2rest/smtp2rest/smtpd/budget"
	"github.com/smtp2rest/smtp2rest/smtpd/reply"
)

const (
	withID = "Message-ID: <1@app>\r\n" + aMail
	slow   = "slow+300ms@example.net"
)

// listen starts an SMTP server before the rig.
func (r *rig) listen() string {
	r.t.Helper()
	s, err := smtpd.New(smtpd.Options{
		Backend: r.Intake, Hostname: "relay.test", Limits: settings.Defaults[smtpd.Limits](), Memory: budget.New(128<<20, nil),
		Listeners: []smtpd.Listener{{Address: "127.0.0.1:0", Networks: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}}},
	})
	if err != nil {
		r.t.Fatal(err)
	}
	if err := s.Start(r.t.Context()); err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if err := s.Stop(ctx); err != nil {
			r.t.Error(err)
		}
	})
	return s.Addrs()[0].String()
}

// submit hands a mail over to recipients, some of whom may be refused, and returns the
// reply. A client in a hurry hangs up after the last dot and gets none.
func submit(t *testing.T, addr, raw, to string, hurry bool) string {
	t.Helper()
	conn, err := net.DialTimeout("tcp", addr, patience)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	_ = conn.SetDeadline(time.Now().Add(patience))
	r := bufio.NewReader(conn)
	lines := []string{"", "HELO app", "MAIL FROM:<shop@sandbox.example>"}
	for rcpt := range strings.FieldsSeq(to) {
		lines = append(lines, "RCPT TO:<"+rcpt+">")
	}
	answer := ""
	for _, line := range append(lines, "DATA", raw+".") {
		if line != "" {
			if _, err := fmt.Fprintf(conn, "%s\r\n", line); err != nil {
				t.Fatal(err)
			}
		}
		if hurry && line == raw+"." {
			return ""
		}
		if answer, err = r.ReadString('\n'); err != nil {
			t.Fatal(err)
		}
	}
	return strings.TrimSpace(answer)
}

func TestAClientThatHungUpIsAnsweredLikeTheFirstTime(t *testing.T) {
	r := newRig(t, plan{timeout: patience})
	addr := r.listen()
	submit(t, addr, withID, slow, true)
	r.waitFor("a call is in flight", func() bool { return r.box.Stats().InFlight == 1 || r.box.Stats().Accepted == 1 })
	r.waitFor("the client is known to be gone", func() bool { return r.recall.size() == 1 })

	second := submit(t, addr, withID, slow, false) // while the first is still being dealt with
	if !strings.HasPrefix(second, "250 2.0.0 accepted") {
		t.Errorf("the same mail again: %q", second)
	}
	if n := r.box.AcceptedFor(slow); n != 1 {
		t.Errorf("it was sent %d times", n)
	}
	r.waitFor("nothing is remembered", func() bool { return r.recall.size() == 0 })
	third := submit(t, addr, withID, slow, false) // the client has its reply: it means it
	if n := r.box.AcceptedFor(slow); third == second || !strings.HasPrefix(third, "250 2.0.0 accepted") || n != 2 {
		t.Errorf("the same mail after its reply came: %q, sent %d times", third, n)
	}
	for name, other := range map[string]string{
		"other content":    strings.Replace(withID, "on its way", "here", 1),
		"other Message-ID": strings.Replace(withID, "<1@app>", "<2@app>", 1),
	} {
		before := r.box.AcceptedFor(slow)
		if got := submit(t, addr, other, slow, false); got == second || !strings.HasPrefix(got, "250") {
			t.Errorf("%s: %q", name, got)
		}
		if r.box.AcceptedFor(slow) != before+1 {
			t.Errorf("%s was not sent", name)
		}
	}
	if got := submit(t, addr, withID, "bob@example.net", false); got == second || r.box.AcceptedFor("bob@example.net") != 1 {
		t.Errorf("another recipient: %q", got)
	}
}

// waitFor polls a condition that another goroutine will make true.
func (r *rig) waitFor(what string, cond func() bool) {
	r.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for !cond() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			r.t.Fatalf("waited in vain until %s", what)
		}
	}
}

func TestAClientThatGotItsReplyMayRepeatItself(t *testing.T) {
	r := newRig(t, plan{})
	addr := r.listen()
	first := submit(t, addr, withID, "bob@example.net", false)
	second := submit(t, addr, withID, "bob@example.net", false)
	if first == second || r.box.AcceptedFor("bob@example.net") != 2 {
		t.Errorf("sent %d times: %q, %q", r.box.AcceptedFor("bob@example.net"), first, second)
	}
}

func TestWithoutAMessageIDEveryMailIsANewOne(t *testing.T) {
	r := newRig(t, plan{timeout: patience})
	addr := r.listen()
	submit(t, addr, aMail, slow, true)
	r.waitFor("the first is sent", func() bool { return r.box.AcceptedFor(slow) == 1 })
	if got := submit(t, addr, aMail, slow, false); !strings.HasPrefix(got, "250") || r.box.AcceptedFor(slow) != 2 {
		t.Errorf("%q, sent %d times", got, r.box.AcceptedFor(slow))
	}
}

// copyFor returns a mail that can be recognised.
func copyFor(to ...string) *relay.Message {
	return &relay.Message{From: "a@b", Recipients: to, Raw: []byte(withID)}
}

// took returns the handling of a message that was queued.
func took(m *relay.Message, id string) *handling {
	h := newHandling(m)
	h.replies = forAll(reply.Queued(id))
	for _, to := range h.to {
		h.ends[to] = end{id: id, taken: true}
	}
	close(h.done)
	return h
}

// look returns what is known of earlier copies, without replacing it.
func (r *recall) look(m *relay.Message) earlier {
	r.mu.Lock()
	defer r.mu.Unlock()
	found := earlier{}
	for _, to := range newHandling(m).to {
		if one, known := r.known.Peek(fingerprint{digestOf(m), to}); known {
			found[to] = *one
		}
	}
	return found
}

// A refused mail was not taken. The same mail again gets a new chance.
func TestARefusalIsNotRemembered(t *testing.T) {
	rc, m := newRecall(), copyFor("c@d")
	h := newHandling(m)
	rc.rememberLost(digestOf(m), h)
	close(h.done) // as after a panic
	if before, err := rc.begin(t.Context(), newHandling(m), func() digest { return digestOf(m) }); err != nil || len(before) > 0 {
		t.Errorf("a mail that was not taken counts as taken: %v, %v", before, err)
	}
}

// A second copy that was taken, and whose client hung up too, replaces a first copy
// that was not.
func TestALaterAcceptanceReplacesARefusal(t *testing.T) {
	rc, m := newRecall(), copyFor("c@d")
	refused := newHandling(m)
	close(refused.done)
	rc.rememberLost(digestOf(m), refused)
	rc.put(digestOf(m), "c@d", memory{copy: refused})
	rc.rememberLost(digestOf(m), took(m, "q1"))
	v, again := rc.look(m).repeat(m.Recipients, m.Recipients, false)
	if !again || v.main().Text() != "queued q1" {
		t.Errorf("the third copy gets %v, %t", v, again)
	}
	if rc.size() != 1 {
		t.Errorf("%d are remembered", rc.size())
	}
}

// If the client of a copy hangs up as well, the mail stays remembered, whenever that
// is noticed. Else the mail is forgotten.
func TestRecallOfCopies(t *testing.T) {
	q := &fakeQueue{}
	r := newRig(t, plan{queue: q})
	for name, lost := range map[string]bool{"not lost": false, "lost": true} {
		t.Run(name, func(t *testing.T) {
			m := copyFor("c@d")
			r.recall.rememberLost(digestOf(m), took(m, "q1"))
			h := newHandling(m)
			before, err := r.recall.begin(t.Context(), h, func() digest { return digestOf(m) })
			v, again := before.repeat(m.Recipients, m.Recipients, false)
			if err != nil || !again || v.main().Text() != "queued q1" {
				t.Fatalf("the second copy gets %v, %t, %v", v, again, err)
			}
			r.repeat(h, before, func() digest { return digestOf(m) }, v, envelope("a@b", "c@d"))
			if lost {
				r.recall.rememberLost(digestOf(m), h)
			}
			if before := r.recall.look(m); (len(before) == 1) != lost {
				t.Errorf("the third copy is recognised: %t", len(before) == 1)
			}
			r.recall.forget(time.Now().Add(lostTime))
			if r.recall.size() != 0 {
				t.Errorf("%d are remembered", r.recall.size())
			}
		})
	}
}

func TestRecallIsBounded(t *testing.T) {
	rc := newRecall()
	for i := range recallMost/2 + 100 {
		m := &relay.Message{Raw: fmt.Appendf(nil, "Message-ID: %d\r\n\r\n", i), Recipients: []string{"a@b", "c@d"}}
		rc.rememberLost(digestOf(m), newHandling(m))
	}
	if rc.size() != recallMost {
		t.Errorf("%d remembered, want %d", rc.size(), recallMost)
	}
	rc.forget(time.Now().Add(lostTime))
	if rc.size() != 0 {
		t.Errorf("%d remembered after an hour", rc.size())
	}
}

// Nobody takes the stale marks of a relay without a queue. They are bounded all the same.
func TestStaleMarksAreBounded(t *testing.T) {
	rc := newRecall()
	for i := range 3 * recallMost {
		m := &relay.Message{Raw: fmt.Appendf(nil, "Message-ID: %d\r\n\r\n", i)}
		rc.mu.Lock()
		rc.put(digestOf(m), "a@b", memory{end: end{owed: true}})
		rc.mu.Unlock()
	}
	if n := len(rc.stale); n != recallMost {
		t.Errorf("%d stale marks are remembered, want %d", n, recallMost)
	}
}

func (r *recall) size() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.known.Len()
}
