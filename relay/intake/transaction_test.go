package intake

import (
	"errors"
	"strings"
	"sync"
	"testing"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/smtp2rest/smtp2rest/relay"
	"github.com/smtp2rest/smtp2rest/relay/history"
	"github.com/smtp2rest/smtp2rest/relay/mail"
)

// notes are the facts that a test recorded.
type notes struct {
	mu    sync.Mutex
	facts []history.Fact
}

func (n *notes) Note(f history.Fact) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.facts = append(n.facts, f)
}

// change returns the history record of the one mail.
func (n *notes) change(t *testing.T) history.Change {
	t.Helper()
	n.mu.Lock()
	defer n.mu.Unlock()
	all := history.Changes(n.facts...)
	if len(all) != 1 || all[0].Head == nil {
		t.Fatalf("the history has %+v", all)
	}
	return all[0]
}

const mailWithFile = "From: shop@sandbox.example\r\nSubject: Secret\r\nMessage-ID: <m1@app>\r\nX-Mailer: x\r\n" +
	"traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\r\nMIME-Version: 1.0\r\n" +
	"Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n\r\nText.\r\n--b\r\nContent-Type: application/pdf; name=a.pdf\r\n\r\npdf\r\n--b--\r\n"

func newStoryRig(t *testing.T, policy mail.AttachmentPolicy) (*rig, *notes) {
	r := newRig(t, plan{mapping: func(o *mail.Options) { o.Attachments = policy }})
	n := &notes{}
	r.opt.History = n
	return r, n
}

func TestWhatIsLeftOutIsRecordedAndCounted(t *testing.T) {
	r, n := newStoryRig(t, mail.StripAttachments)
	told := r.send(t.Context(), mailWithFile, "shop@sandbox.example", "bob@example.net")
	c := n.change(t)
	want := []history.LeftOut{{Kind: "attachment_stripped", Detail: "1 (3 bytes)"}, {Kind: "headers_dropped", Detail: "1 (2 bytes)"}}
	if len(c.Head.LeftOut) != 2 || c.Head.LeftOut[0] != want[0] || c.Head.LeftOut[1] != want[1] {
		t.Errorf("left out: %+v", c.Head.LeftOut)
	}
	if c.Head.MessageID != "m1@app" || c.Head.TraceParent == "" || c.Head.Author != "shop@sandbox.example" || c.Reply != told.String() {
		t.Errorf("%+v of %+v", c.Head, c)
	}
	if c.Head.Subject != "" {
		t.Errorf("the subject is kept, which nobody wanted: %q", c.Head.Subject)
	}
	for kind, want := range map[mail.OmissionKind]float64{mail.AttachmentStripped: 1, mail.HeadersDropped: 1, mail.PartDropped: 0} {
		if got := testutil.ToFloat64(r.metrics.leftOut.WithLabelValues(kind.String())); got != want {
			t.Errorf("%s is counted %v times, want %v", kind, got, want)
		}
	}
}

// A mail that cannot be mapped is recorded by what its header says. Its omissions do
// not count.
func TestARefusedMailHasItsRecord(t *testing.T) {
	r, n := newStoryRig(t, mail.RefuseAttachments)
	with := *r.set.Load()
	with.Subjects = true
	r.set.Store(&with)
	told := r.send(t.Context(), mailWithFile, "shop@sandbox.example", "bob@example.net", "zoe@example.net")
	c := n.change(t)
	if c.Head.MessageID != "m1@app" || c.Head.Subject != "Secret" || c.Head.Author != "shop@sandbox.example" || !strings.HasPrefix(told.String(), "554 5.6.1") || c.Reply != "554 5.6.1 attachments cannot be sent from here" {
		t.Errorf("%+v of %+v", c.Head, c)
	}
	if len(c.Recipients) != 2 || c.Recipients[0].Refused.IsZero() {
		t.Errorf("%+v", c.Recipients)
	}
	if got := testutil.ToFloat64(r.metrics.leftOut.WithLabelValues(mail.HeadersDropped.String())); got != 0 {
		t.Errorf("counted %v times", got)
	}
}

// Replies to each recipient are in the record.
func TestEachReplyIsRecorded(t *testing.T) {
	r, n := newStoryRig(t, mail.RefuseAttachments)
	replies := r.sendEach(aMail, "bob@example.net", "invalid@example.net")
	c := n.change(t)
	for i, want := range replies {
		steps := c.Recipients[i].Steps
		if len(steps) != 1 || steps[0].What != history.StepAnswered || steps[0].Text != want.String() {
			t.Errorf("%+v, want %s", c.Recipients[i], want)
		}
	}
	if !c.Recipients[0].Refused.IsZero() || c.Recipients[1].Refused.IsZero() {
		t.Errorf("%+v", c.Recipients)
	}
}

func TestARefusalAtRcptHasItsRecord(t *testing.T) {
	r, n := newStoryRig(t, mail.RefuseAttachments)
	r.sendMail("suppressed@example.net")
	n.facts = nil
	told := r.sendMail("suppressed@example.net")
	if c := n.change(t); c.Reply != told.String() || len(c.Recipients) != 1 || c.Recipients[0].Refused.IsZero() {
		t.Errorf("%+v, told %s", c, told)
	}
}

// A mail that comes again has a record for those recipients that it is for; those
// that have it are in the record of the first.
func TestAResendHasItsRecord(t *testing.T) {
	r, n := newStoryRig(t, mail.RefuseAttachments)
	q := &fakeQueue{err: errors.New("full")}
	r.opt.Queue = q
	compare(t, r.sendResent("bob@example.net", "down@example.net"), isFull)
	q.err = nil
	compare(t, r.sendResent("bob@example.net", "down@example.net"), keptIt)
	all := history.Changes(n.facts...)
	if len(all) != 2 || len(all[0].Recipients) != 2 || len(all[1].Recipients) != 1 || relay.FirstID(all[1].ID) != all[0].ID {
		t.Fatalf("the history has %+v", all)
	}
	if to := all[1].Recipients[0]; to.Addr != "down@example.net" || to.State != "" || !to.Refused.IsZero() {
		t.Errorf("the second record says %+v", to)
	}
}
