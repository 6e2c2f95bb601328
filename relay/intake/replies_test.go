package intake

import (
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"net/http"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/smtp2rest/smtp2rest/relay"
	"github.com/smtp2rest/smtp2rest/relay/mail"
	"github.com/smtp2rest/smtp2rest/relay/queue"
	"github.com/smtp2rest/smtp2rest/relay/suppress"
	"github.com/smtp2rest/smtp2rest/smtpd/policy"
	"github.com/smtp2rest/smtp2rest/smtpd/reply"
)

// situation is one line of the table of replies: a description, the functions of the
// catalogue that make the reply, and either what causes it or, if smtpd alone decides,
// the replies themselves.
type situation struct {
	words  string
	by     string // names in smtpd/reply/catalogue.go
	causes []cause
	edge   []said
}

// cause is one way to get into a situation. It is played against the real client and
// the sandbox three times: without a queue, with a queue, and with a full queue. If
// queued or full is "", the API's answer is final and no queue is asked.
type cause struct {
	name    string
	to      string // recipients; default bob@example.net
	raw     string
	from    string
	plan    plan
	prepare func(*rig)
	rules   policy.Rules
	now     string // all three are regular expressions for the whole reply
	queued  string
	full    string
	check   func(*testing.T, *rig) // after the run without a queue
}

type said struct {
	reply *reply.Reply
	want  string
}

const (
	queueID   = `[0-9a-v]{20}(?:\.[0-9a-v]{8})?`
	messageID = `msg_[0-9a-z]+`
	keptIt    = `250 2\.0\.0 queued ` + queueID
	isFull    = `452 4\.3\.1 out of storage, try again later`
	isDown    = `451 4\.4\.2 the mail API does not answer, try again later`
)

// later is a cause for which a queue would help.
func later(to, now string) cause {
	return cause{name: to, to: to, now: now, queued: keptIt, full: isFull}
}

func answering(status int, header, text string) plan {
	return plan{api: func(w http.ResponseWriter, _ *http.Request) {
		if name, value, found := strings.Cut(header, ": "); found {
			w.Header().Set(name, value)
		}
		w.WriteHeader(status)
		_, _ = io.WriteString(w, text)
	}}
}

const withFile = "From: shop@sandbox.example\r\nSubject: Invoice\r\nMIME-Version: 1.0\r\n" +
	"Content-Type: multipart/mixed; boundary=x\r\n\r\n--x\r\nContent-Type: text/plain\r\n\r\nSee the file.\r\n" +
	"--x\r\nContent-Type: application/pdf; name=invoice.pdf\r\nContent-Disposition: attachment; filename=invoice.pdf\r\n" +
	"Content-Transfer-Encoding: base64\r\n\r\nJVBERg==\r\n--x--\r\n"

func situations() []situation {
	may := time.Date(2026, 5, 4, 0, 0, 0, 0, time.UTC)
	return slices.Concat(answers(may), delays(), contents(), edges())
}

// answers are situations that the API decides while the client waits.
func answers(may time.Time) []situation {
	return []situation{
		{words: "every recipient accepted by the API, now", by: "Accepted", causes: []cause{
			{name: "one", now: `250 2\.0\.0 accepted ` + queueID + ` ` + messageID},
			{name: "two", to: "bob@example.net eve@example.net", now: `250 2\.0\.0 accepted ` + queueID + ` ` + messageID + ` ` + messageID},
		}},
		{words: "recipient known to be suppressed: hard bounce", by: "Suppressed", causes: []cause{{
			prepare: func(r *rig) { r.suppressions.Learn("bob@example.net", suppress.HardBounce, "", may) },
			now:     `550 5\.1\.1 <bob@example\.net> suppressed: hard bounce on 2026-05-04`,
		}}},
		{words: "recipient known to be suppressed: complaint, unsubscribe, refused by the API before", by: "Suppressed", causes: []cause{
			{name: "complaint", prepare: func(r *rig) { r.suppressions.Learn("BOB@Example.NET", suppress.Complaint, "", may) },
				now: `550 5\.7\.1 <bob@example\.net> suppressed: complaint since 2026-05-04`},
			{name: "unsubscribe", prepare: func(r *rig) { r.marks("bob@example.net", may) },
				now: `550 5\.7\.1 <bob@example\.net> suppressed: unsubscribed since 2026-05-04`},
			{name: "API verdict", prepare: func(r *rig) { r.suppressions.Learn("bob@example.net", suppress.Provider, "", may) },
				now: `550 5\.7\.1 <bob@example\.net> suppressed: on the provider's suppression list since 2026-05-04`},
		}},
		{words: "the API answers 422 suppressed for every recipient, now", by: "AllSuppressed Suppressed", causes: []cause{
			{name: "one", to: "suppressed@example.net", now: `550 5\.7\.1 suppressed: <suppressed@example\.net>`, check: refusedNextTime},
			{name: "two", to: "suppressed@example.net suppressed+2@example.net",
				now: `550 5\.7\.1 suppressed: <suppressed@example\.net>, <suppressed\+2@example\.net>`, check: refusedNextTime},
		}},
		{words: "422 suppressed for some, others accepted or queued", by: "AcceptedExcept Queued", causes: []cause{
			{name: "others accepted", to: "bob@example.net suppressed@example.net",
				now:    `250 2\.0\.0 accepted ` + queueID + ` except <suppressed@example\.net>`,
				queued: `250 2\.0\.0 accepted ` + queueID + ` except <suppressed@example\.net>`,
				// bob has the mail already: no reply may make the client send it
				// again.
				full: `250 2\.0\.0 accepted ` + queueID + ` except <suppressed@example\.net>`, check: bounced},
			{name: "others queued", to: "down@example.net suppressed@example.net", now: isDown, queued: keptIt, full: isFull},
		}},
		{words: "422 validation, 400, now", by: "RefusedByAPI", causes: []cause{
			{name: "422", to: "invalid@example.net", now: `554 5\.6\.0 refused by the API: to\.email does not accept mail`},
			{name: "400", to: "badrequest@example.net", now: `554 5\.6\.0 refused by the API: the request is not understood`},
			{name: "with no reason", plan: answering(422, "", `nonsense`), now: `554 5\.6\.0 refused by the API: no reason given`},
			{name: "more lines than one", plan: answering(422, "", `{"error":"validation","message":"bad\r\n250 2.0.0 ok \u2603"}`),
				now: `554 5\.6\.0 refused by the API: bad 250 2\.0\.0 ok \?`},
			{name: "too long", plan: answering(400, "", `{"message":"`+strings.Repeat("long ", 200)+`"}`),
				now: `554 5\.6\.0 refused by the API: (long )+\S{1,3}`},
			{name: "for one of them", to: "suppressed@example.net invalid@example.net", now: `554 5\.6\.0 refused by the API: to\.email does not accept mail`},
		}},
		{words: "413", by: "TooLarge", causes: []cause{{to: "toolarge@example.net", now: `552 5\.3\.4 message too large`}}},
	}
}

// delays are situations without an answer of the API: 4xx, or 250 from a queue.
func delays() []situation {
	brief := plan{timeout: 300 * time.Millisecond} // the API's time
	const misconfigured = `451 4\.3\.5 the relay is not configured correctly and its operator must fix it; try again later`
	return []situation{
		{words: "the API is slow, limited or down", by: "Queued", causes: []cause{
			{name: "slow", to: "slow+2s@example.net", plan: brief, now: isDown, queued: keptIt, full: isFull},
			later("ratelimited+0x30@example.net", `451 4\.3\.2 try again in 30 s`),
			later("down@example.net", isDown),
		}},
		{words: "401, 403", by: "NotConfigured", causes: []cause{
			{name: "401", prepare: func(r *rig) { _ = r.box.SetKey("another") }, now: misconfigured, queued: keptIt, full: isFull},
			later("forbidden@example.net", misconfigured),
			{name: "and down, and limited", to: "forbidden@example.net down@example.net ratelimited+0x30@example.net",
				plan: plan{before: "forbidden@example.net"}, now: misconfigured, queued: keptIt, full: isFull},
			// Nobody asks the API while it wants to be left alone, so nobody knows.
			{name: "after a 429 closed the gate", to: "forbidden@example.net", prepare: closeTheGate,
				now: `451 4\.3\.2 try again in [1-6][0-9] s`, queued: keptIt, full: isFull},
		}},
		{words: "429", by: "RateLimited", causes: []cause{
			later("ratelimited+0x90@example.net", `451 4\.3\.2 try again in 90 s`),
			{name: "Retry-After as a date", plan: answering(429, "Retry-After: "+time.Now().Add(2*time.Minute).UTC().Format(http.TimeFormat), "{}"),
				now: `451 4\.3\.2 try again in 1(1[0-9]|20) s`, queued: keptIt, full: isFull},
			{name: "without Retry-After", plan: answering(429, "", "{}"), now: `451 4\.3\.2 try again in 60 s`, queued: keptIt, full: isFull},
			{name: "and down", to: "ratelimited+0x30@example.net down@example.net", now: `451 4\.3\.2 try again in 30 s`, queued: keptIt, full: isFull},
		}},
		{words: "5xx, 3xx, 404, 408, time-out, network, an answer that is no JSON or has no message_id", by: "APIUnavailable", causes: []cause{
			later("down@example.net", isDown),
			later("unavailable@example.net", isDown),
			later("redirect@example.net", isDown),
			later("notfound@example.net", isDown),
			{name: "408", plan: answering(408, "", "{}"), now: isDown, queued: keptIt, full: isFull},
			{name: "time-out", to: "timeout@example.net", plan: brief, now: isDown, queued: keptIt, full: isFull},
			later("reset@example.net", isDown),
			later("lost@example.net", isDown),
			{name: "nobody listens", prepare: (*rig).stopSandbox, now: isDown, queued: keptIt, full: isFull},
			later("nojson@example.net", isDown),
			later("noid@example.net", isDown),
		}},
		{words: "queue full, disk full, disk error", by: "StorageFull", causes: []cause{later("down@example.net", isDown)}},
	}
}

// contents are situations that the mapping decides, before anything is sent.
func contents() []situation {
	strip := plan{mapping: func(o *mail.Options) { o.Attachments = mail.StripAttachments }}
	foreign := plan{mapping: func(o *mail.Options) { o.ForeignSender = mail.Refuse }}
	send := plan{mapping: func(o *mail.Options) { o.Attachments = mail.SendAttachments },
		api: func(w http.ResponseWriter, r *http.Request) {
			json, _ := io.ReadAll(r.Body)
			if !strings.Contains(string(json), `"content":"JVBERg=="`) {
				w.WriteHeader(http.StatusUnprocessableEntity)
			}
			_, _ = io.WriteString(w, `{"message_id":"msg_1"}`)
		}}
	return []situation{
		{words: "an attachment or part that the payload cannot carry", by: "CannotCarry", causes: []cause{
			{name: "refused", raw: withFile, now: `554 5\.6\.1 .*invoice\.pdf.*`, check: nothingSent},
			{name: "stripped", raw: withFile, plan: strip, now: `250 2\.0\.0 accepted .*`, check: func(t *testing.T, r *rig) {
				if b := r.callTo("bob@example.net"); !strings.Contains(b.Text, "invoice.pdf") || !strings.Contains(b.HTML, "invoice.pdf") {
					t.Errorf("the bodies do not say what was left out: %+v", b)
				}
			}},
			{name: "sent", raw: withFile, plan: send, now: `250 2\.0\.0 accepted ` + queueID + ` msg_1`},
			{name: "encrypted", raw: "From: shop@sandbox.example\r\nSubject: s\r\nMIME-Version: 1.0\r\n" +
				"Content-Type: multipart/encrypted; protocol=\"application/pgp-encrypted\"; boundary=x\r\n\r\n" +
				"--x\r\nContent-Type: application/pgp-encrypted\r\n\r\nVersion: 1\r\n" +
				"--x\r\nContent-Type: application/octet-stream\r\n\r\nsealed\r\n--x--\r\n",
				now: `554 5\.6\.1 .*encrypted.*`, check: nothingSent},
		}},
		{words: "nothing that can be sent at all (no text, no html, no attachment)", by: "Accepted", causes: []cause{{
			raw: "From: shop@sandbox.example\r\nSubject: The message\r\n\r\n", now: `250 2\.0\.0 accepted .*`,
			check: func(t *testing.T, r *rig) {
				if b := r.callTo("bob@example.net"); b.Subject != "The message" || b.HTML == "" || b.Text != "" {
					t.Errorf("the API got %+v", b)
				}
			}}}},
		{words: "MAIL and RCPT taken (beyond the table)", by: "Ok",
			edge: []said{{reply.Ok("MAIL"), `250 2\.1\.0 sender ok`}, {reply.Ok("RCPT"), `250 2\.1\.5 recipient ok`}}},
		{words: "unparsable beyond repair", by: "Unparsable",
			edge: []said{{reply.From(Refusal(&mail.Refusal{Reason: mail.Unparsable, Detail: "nothing in it can be read"})),
				`554 5\.6\.0 nothing in it can be read`}}},
		{words: `From outside the verified domains, policy "refuse"`, by: "SenderDomainRefused", causes: []cause{
			{name: "refused", raw: "From: eve@elsewhere.example\r\nSubject: s\r\n\r\nb\r\n", plan: foreign,
				now: `550 5\.7\.1 From <eve@elsewhere\.example> is not in a domain this relay may send from`, check: nothingSent},
			{name: "rewritten", raw: "From: eve@elsewhere.example\r\nSubject: s\r\n\r\nb\r\n", now: `250 2\.0\.0 accepted .*`},
		}},
	}
}

// edges are situations that smtpd alone decides. Its own tests show them.
func edges() []situation {
	return []situation{
		{words: "beyond the table: a rule against the author", by: "FromNotAllowed", causes: authors()},
		{words: "beyond the table: a rule against the recipient", by: "RecipientNotAllowed",
			edge: []said{{reply.RecipientNotAllowed("a@b"), `550 5\.7\.1 <a@b> is not allowed as a recipient here`}}},
		{words: "MAIL FROM not allowed for this user", by: "SenderNotAllowed",
			edge: []said{{reply.SenderNotAllowed("a@b"), `553 5\.7\.1 <a@b> is not allowed as a sender here`}}},
		{words: "client not in an allowed network and not authenticated", by: "AuthRequired RelayDenied", edge: []said{
			{reply.AuthRequired(), `530 5\.7\.0 authentication required`},
			{reply.RelayDenied(), `554 5\.7\.1 relaying denied for this address`}}},
		{words: "wrong password", by: "WrongPassword TooManyFailures", edge: []said{
			{reply.WrongPassword(), `535 5\.7\.8 authentication failed`},
			{reply.TooManyFailures(), `421 4\.7\.0 too many failed attempts`}}},
		{words: "AUTH without TLS where TLS is required", by: "AuthNeedsTLS",
			edge: []said{{reply.AuthNeedsTLS(), `538 5\.7\.11 encryption required for authentication`}}},
		{words: "message too large", by: "TooLarge", edge: []said{{reply.TooLarge(), `552 5\.3\.4 message too large`}}},
		{words: "too many recipients", by: "TooManyRecipients", edge: []said{{reply.TooManyRecipients(), `452 4\.5\.3 too many recipients`}}},
		{words: "memory budget spent", by: "MemorySpent", edge: []said{{reply.MemorySpent(), `452 4\.3\.1 out of memory, try again later`}}},
		{words: "header of a mail too large", by: "HeaderTooLarge", edge: []said{{reply.HeaderTooLarge(), `552 5\.3\.4 message header too large`}}},
		{words: "too many mails on one connection", by: "TooManyMessages",
			edge: []said{{reply.TooManyMessages(), `421 4\.7\.0 too many messages in one connection, connect again`}}},
		{words: "too many recipients in a time, from an address, a user or a sender", by: "RateExceeded",
			edge: []said{{reply.RateExceeded("this sender", 90*time.Second), `450 4\.7\.1 too many recipients from this sender, try again in 90 s`}}},
		{words: "too many connections, in all or from one address", by: "TooManyConnections",
			edge: []said{{reply.TooManyConnections(), `421 4\.7\.0 too many connections, try again later`}}},
		{words: "Received headers beyond 50", by: "MailLoop", edge: []said{{reply.MailLoop(), `554 5\.4\.6 mail loop: too many Received headers`}}},
		{words: "shutting down", by: "ShuttingDown", edge: []said{{reply.ShuttingDown(), `421 4\.3\.2 shutting down, try again later`}}},
		{words: "a bug (panic)", by: "Bug", edge: []said{{reply.Bug(), `421 4\.3\.0 internal error`}}},
		{words: "the database of `store.url` cannot be reached, and the API does not take the mail at once", by: "QueueUnreachable",
			edge: []said{{notStored(fmt.Errorf("the database: %w", queue.ErrUnreachable)), `451 4\.3\.0 the queue cannot be reached, try again later`}}},
		{words: "beyond the table: a cause that nobody foresaw", by: "LocalError",
			edge: []said{{reply.From(errors.New("disk /dev/sda1 is on fire")), `451 4\.3\.0 local error, try again later`}}},
		{words: "beyond the table: an address that is none", by: "BadAddress", edge: []said{
			{reply.BadAddress("MAIL"), `553 5\.1\.7 bad address syntax`}, {reply.BadAddress("RCPT"), `553 5\.1\.3 bad address syntax`}}},
		{words: "beyond the table: the client's data ends too early", by: "Interrupted",
			edge: []said{{reply.Interrupted(), `451 4\.4\.2 the message was cut short`}}},
	}
}

// TestReplies plays every line of the table.
func TestReplies(t *testing.T) {
	for _, s := range situations() {
		t.Run(s.words, func(t *testing.T) {
			t.Parallel()
			for _, e := range s.edge {
				compare(t, e.reply, e.want)
			}
			for _, c := range s.causes {
				t.Run(c.name+" without a queue", func(t *testing.T) { t.Parallel(); c.play(t, NoQueue{}, c.now, c.check) })
				t.Run(c.name+" with a queue", func(t *testing.T) {
					t.Parallel()
					q := &fakeQueue{}
					c.play(t, q, or(c.queued, c.now), nil)
					if wanted := c.queued != ""; wanted != (q.kept() == 1) {
						t.Errorf("the queue keeps %d mails", q.kept())
					}
				})
				t.Run(c.name+" with a full queue", func(t *testing.T) {
					t.Parallel()
					c.play(t, &fakeQueue{err: errors.New("no space left on /var")}, or(c.full, c.now), nil)
				})
			}
		})
	}
}

func (c cause) play(t *testing.T, q Queue, want string, check func(*testing.T, *rig)) {
	p := c.plan
	p.queue = q
	r := newRig(t, p)
	if c.prepare != nil {
		c.prepare(r)
	}
	r.rules = policy.Chain{{}, c.rules}
	got := r.send(t.Context(), or(c.raw, aMail), or(c.from, "shop@sandbox.example"), strings.Fields(or(c.to, "bob@example.net"))...)
	compare(t, got, want)
	if check != nil {
		check(t, r)
	}
}

func compare(t *testing.T, got *reply.Reply, want string) {
	t.Helper()
	if got == nil || !regexp.MustCompile(`^`+want+`$`).MatchString(got.String()) {
		t.Errorf("the client is told %v\nwant               %s", got, want)
	}
}

// refusedNextTime: what the API said about a recipient is known at the next RCPT.
func refusedNextTime(t *testing.T, r *rig) {
	calls := len(r.box.Calls())
	compare(t, r.sendMail("suppressed@example.net"),
		`550 5\.7\.1 <suppressed@example\.net> suppressed: on the provider's suppression list since `+time.Now().UTC().Format(time.DateOnly))
	if len(r.box.Calls()) != calls {
		t.Error("the API was asked again")
	}
}

// closeTheGate makes the API answer 429 to another mail.
func closeTheGate(r *rig) {
	r.sendMail("ratelimited+0x60@example.net")
	if q, ok := r.opt.Queue.(*fakeQueue); ok {
		q.rest = nil
	}
}

func nothingSent(t *testing.T, r *rig) {
	if n := len(r.box.Calls()); n != 0 {
		t.Errorf("the API got %d calls", n)
	}
}

func bounced(t *testing.T, r *rig) {
	b := r.callTo("shop@sandbox.example")
	if b.From.Email != "relay@sandbox.example" || !strings.Contains(b.Text, "<suppressed@example.net>") || strings.Contains(b.Text, "bob@") {
		t.Errorf("the bounce is %+v", b)
	}
}

// A new reply in the catalogue needs a line in the table.
func TestEveryReplyHasItsSituation(t *testing.T) {
	file, err := parser.ParseFile(token.NewFileSet(), filepath.Join("..", "..", "smtpd", "reply", "catalogue.go"), nil, 0)
	if err != nil {
		t.Fatal(err)
	}
	used := map[string]bool{}
	words := map[string]bool{}
	for _, s := range situations() {
		if words[s.words] || len(s.causes)+len(s.edge) == 0 {
			t.Errorf("%q is there twice or proves nothing", s.words)
		}
		words[s.words] = true
		for name := range strings.FieldsSeq(s.by) {
			used[name] = true
		}
	}
	declared := map[string]bool{}
	for _, decl := range file.Decls {
		f, ok := decl.(*ast.FuncDecl)
		if !ok || f.Recv != nil || !f.Name.IsExported() {
			continue
		}
		declared[f.Name.Name] = true
		if !used[f.Name.Name] {
			t.Errorf("reply.%s is in no situation", f.Name.Name)
		}
	}
	for name := range used {
		if !declared[name] {
			t.Errorf("there is no reply.%s", name)
		}
	}
}

// Each reason of the mapping has its own permanent reply.
func TestEveryRefusalHasItsReply(t *testing.T) {
	want := map[mail.RefusalReason]string{
		mail.Unparsable:    `554 5\.6\.0 why`,
		mail.HasAttachment: `554 5\.6\.1 why`,
		mail.SenderDomain:  `550 5\.7\.1 .*why.*`,
		mail.Encrypted:     `554 5\.6\.1 why`,
		mail.TooCostly:     `552 5\.3\.4 message too large`,
	}
	for _, reason := range mail.RefusalReasons() {
		compare(t, reply.From(Refusal(fmt.Errorf("wrapped: %w", &mail.Refusal{Reason: reason, Detail: "why"}))), or(want[reason], "a line in this test"))
	}
	compare(t, reply.From(Refusal(errors.New("out of paper"))), `451 4\.3\.0 local error, try again later`)
}

// Without a queue, each outcome alone decides the reply.
func TestEveryKindHasItsReply(t *testing.T) {
	want := map[relay.Kind]string{
		relay.Accepted:     `250 2\.0\.0 accepted id1 msg_1`,
		relay.Suppressed:   `550 5\.7\.1 suppressed: <bob@example\.net>`,
		relay.Refused:      `554 5\.6\.0 refused by the API: why`,
		relay.TooLarge:     `552 5\.3\.4 message too large`,
		relay.Unauthorized: `451 4\.3\.5 .*`,
		relay.RateLimited:  `451 4\.3\.2 try again in 7 s`,
		relay.Unavailable:  isDown,
		relay.Ambiguous:    isDown,
	}
	for _, k := range relay.Kinds() {
		t.Run(k.String(), func(t *testing.T) {
			r := newRig(t, plan{})
			m := &relay.Message{ID: "id1", Recipients: []string{"bob@example.net"}, From: "shop@sandbox.example", Raw: []byte(aMail)}
			rest := relay.Remainder{Message: m, Outcomes: []relay.Outcome{
				{Kind: k, MessageID: "msg_1", Detail: "why", RetryAfter: 7 * time.Second, Cause: errors.New("private")}}}
			got, _ := r.settle(t.Context(), &transaction{message: m, handling: newHandling(m), tried: rest, parts: []relay.Remainder{rest}})
			compare(t, got[0], or(want[k], "a line in this test"))
		})
	}
}
