package intake

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/smtp2rest/smtp2rest/smtpd/reply"
)

// sendEach hands a mail over as LMTP does.
func (r *rig) sendEach(raw string, to ...string) []*reply.Reply {
	r.t.Helper()
	env := envelope("shop@sandbox.example", to...)
	env.Rules = r.rules
	return r.MessageEach(r.t.Context(), env, []byte(raw))
}

const (
	acceptedIt = `250 2\.0\.0 accepted ` + queueID + ` ` + messageID
	refusedIt  = `554 5\.6\.0 refused by the API: to\.email does not accept mail`
)

// Each recipient gets the reply that it would get alone. A recipient that is refused
// is in no bounce and in no queue.
func TestEachRecipientHasItsOwnReply(t *testing.T) {
	suppressed := func(who string) string { return `550 5\.7\.1 suppressed: <` + who + `>` }
	for _, tt := range []struct {
		name, to   string
		raw        string
		queue      Queue // nil: one that keeps all
		want       []string
		keeps      string // recipients that the queue is given
		bounceFor  string // whom the bounce that is sent at once names
		sentToThem string
	}{
		{name: "accepted", to: "bob@example.net eve@example.net", want: []string{acceptedIt, acceptedIt}, sentToThem: "bob@example.net eve@example.net"},
		{name: "some suppressed", to: "suppressed@example.net bob@example.net", want: []string{suppressed("suppressed@example.net"), acceptedIt}, sentToThem: "bob@example.net"},
		{name: "none", to: "suppressed@example.net invalid@example.net", want: []string{suppressed("suppressed@example.net"), refusedIt}},
		{name: "later", to: "bob@example.net down@example.net invalid@example.net", want: []string{acceptedIt, keptIt, refusedIt}, keeps: "down@example.net", sentToThem: "bob@example.net"},
		{name: "without a queue", to: "bob@example.net down@example.net invalid@example.net", queue: NoQueue{}, want: []string{acceptedIt, isDown, refusedIt}, sentToThem: "bob@example.net"},
		{name: "with a full queue", to: "bob@example.net down@example.net invalid@example.net", queue: &fakeQueue{err: errors.New("full")}, want: []string{acceptedIt, isFull, refusedIt}, sentToThem: "bob@example.net"},
		{name: "twice", to: "bob@example.net BOB@example.net down@example.net down@example.net", want: []string{acceptedIt, acceptedIt, keptIt, keptIt}, keeps: "down@example.net", sentToThem: "bob@example.net"},
		{name: "an alias", to: "half@x suppressed+2@example.net", want: []string{`250 2\.0\.0 accepted ` + queueID + ` except <half@x>`, suppressed(`suppressed\+2@example.net`)},
			keeps: "bob@example.net suppressed@example.net", sentToThem: "bob@example.net"},
		{name: "an alias without a queue", to: "half@x suppressed+2@example.net", queue: NoQueue{}, want: []string{`250 2\.0\.0 accepted ` + queueID + ` except <half@x>`, suppressed(`suppressed\+2@example.net`)},
			bounceFor: "suppressed@example.net", sentToThem: "bob@example.net shop@sandbox.example"},
		{name: "an alias for one who is named", to: "suppressed@example.net half@x", want: []string{suppressed("suppressed@example.net"), `250 2\.0\.0 accepted ` + queueID + ` except <half@x>`},
			keeps: "suppressed@example.net bob@example.net", sentToThem: "bob@example.net"},
		{name: "an alias of whom nobody is left", to: "all@x bob@example.net", want: []string{suppressed("all@x"), acceptedIt}, sentToThem: "bob@example.net"},
		{name: "a mail that cannot be sent", raw: withFile, to: "bob@example.net eve@example.net", want: []string{`554 5\.6\.1 .*`, `554 5\.6\.1 .*`}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			kept := &fakeQueue{}
			q := tt.queue
			if q == nil {
				q = kept
			}
			r := newAliasRig(t, map[string]string{"all@x": "suppressed@example.net suppressed+2@example.net"}, q)
			got := r.sendEach(or(tt.raw, aMail), strings.Fields(tt.to)...)
			if len(got) != len(tt.want) {
				t.Fatalf("%d replies: %v", len(got), got)
			}
			for i := range got {
				compare(t, got[i], tt.want[i])
			}
			var keeps []string
			for _, rest := range kept.rest {
				keeps = append(keeps, rest.Message.Recipients...)
				if len(rest.Message.Recipients) != len(rest.Outcomes) || string(rest.Message.Raw) != aMail {
					t.Errorf("the queue is given %+v", rest)
				}
			}
			if strings.Join(keeps, " ") != tt.keeps {
				t.Errorf("the queue is given %v, want %s", keeps, tt.keeps)
			}
			var sent []string
			for _, to := range r.recipients() {
				if r.box.AcceptedFor(to) > 0 {
					sent = append(sent, to)
				}
			}
			if strings.Join(slices.Compact(sent), " ") != tt.sentToThem {
				t.Errorf("mail went to %v, want %s", sent, tt.sentToThem)
			}
			if tt.bounceFor != "" {
				if b := r.callTo("shop@sandbox.example"); !strings.Contains(b.Text, tt.bounceFor) || strings.Contains(b.Text, "suppressed+2") {
					t.Errorf("the bounce says %s", b.Text)
				}
			}
		})
	}
}

// The message id in a reply is that of this recipient's mail.
func TestEachReplyNamesItsMail(t *testing.T) {
	r := newRig(t, plan{})
	got := r.sendEach(aMail, "bob@example.net", "eve@example.net")
	for i, to := range []string{"bob@example.net", "eve@example.net"} {
		for _, c := range r.box.Calls() {
			if c.To == to && !strings.HasSuffix(got[i].Text(), " "+c.MessageID) {
				t.Errorf("%s is told %s, the API said %s", to, got[i], c.MessageID)
			}
		}
	}
}

// A client that did not get the replies gets the same ones again. It does not get one
// reply in their place, because then nobody would be told of the refused recipient.
func TestEachAgain(t *testing.T) {
	rc, m := newRecall(), copyFor("c@d", "e@f")
	h := newHandling(m)
	h.replies = replies{each: []*reply.Reply{reply.TooLarge(), reply.Queued("q1")}, of: []string{"c@d", "e@f"}}
	close(h.done)
	rc.rememberLost(digestOf(m), h)
	before := rc.look(m)
	v, again := before.repeat(m.Recipients, []string{"e@f", "c@d"}, true)
	if !again || len(v.each) != 2 || v.each[0].Text() != "queued q1" || v.each[1].Code() != 552 {
		t.Errorf("again: %v, %+v", again, v)
	}
	if _, again := before.repeat(m.Recipients, []string{"e@f", "C@d"}, true); again {
		t.Error("a recipient that was named in another way is told of another's reply")
	}
	if _, again := before.repeat(m.Recipients, m.Recipients, false); again {
		t.Error("one reply stands for two that differ")
	}
}
