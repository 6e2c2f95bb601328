package intake

import (
	"context"
	"errors"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/smtp2rest/smtp2rest/relay"
	"github.com/smtp2rest/smtp2rest/relay/mail"
	"github.com/smtp2rest/smtp2rest/relay/provider/nexuspromail/sandbox"
	"github.com/smtp2rest/smtp2rest/smtpd"
	"github.com/smtp2rest/smtp2rest/smtpd/reply"
)

// The recipients of the envelope get the mail, whatever the header says, by one call
// each.
func TestTheEnvelopeDecidesWhoGetsIt(t *testing.T) {
	r := newRig(t, plan{})
	raw := "From: shop@sandbox.example\r\nTo: a@elsewhere.example\r\nCc: b@elsewhere.example\r\nBcc: c@elsewhere.example\r\nSubject: s\r\n\r\nb\r\n"
	compare(t, r.send(t.Context(), raw, "shop@sandbox.example", "bob@example.net", "eve@example.net"), `250 .*`)
	var to []string
	for _, c := range r.box.Calls() {
		to = append(to, c.To)
		if strings.Contains(string(c.Body), "elsewhere.example") {
			t.Errorf("the API got an address of the header: %s", c.Body)
		}
	}
	if slices.Sort(to); !slices.Equal(to, []string{"bob@example.net", "eve@example.net"}) {
		t.Errorf("the API was asked to send to %v", to)
	}
}

// A recipient that is named twice gets one copy.
func TestARecipientNamedTwiceGetsOneCopy(t *testing.T) {
	r := newRig(t, plan{})
	got := r.sendMail("bob@example.net", "Bob@EXAMPLE.net", "eve@example.net", "bob@example.net")
	compare(t, got, `250 2\.0\.0 accepted `+queueID+` `+messageID+` `+messageID)
	if n := len(r.box.Calls()); n != 2 {
		t.Errorf("the API got %d calls, want 2", n)
	}
}

// Each message and recipient has its own idempotency key.
func TestEachRecipientHasItsKey(t *testing.T) {
	r := newRig(t, plan{})
	r.sendMail("bob@example.net", "eve@example.net")
	r.sendMail("bob@example.net")
	if s := r.box.Stats(); s.Keys != 3 || s.WithoutKey != 0 || s.Duplicates != 0 {
		t.Errorf("the sandbox counted %+v", s)
	}
}

// What the API accepted cannot be taken back. So without a queue, a bounce tells the
// sender at once of the recipients that were refused.
func TestSomeSuppressedIsABounce(t *testing.T) {
	r := newRig(t, plan{})
	got := r.sendMail("bob@example.net", "suppressed@example.net", "invalid@example.net")
	compare(t, got, `250 2\.0\.0 accepted `+queueID+` except <suppressed@example\.net>, <invalid@example\.net>`)
	b := r.callTo("shop@sandbox.example")
	id := strings.Fields(got.Text())[1]
	for _, want := range []string{"<suppressed@example.net>", "suppression list", "<invalid@example.net>", "to.email does not accept mail", id, "Subject: Order 4711"} {
		if !strings.Contains(b.Text, want) {
			t.Errorf("the bounce does not say %q:\n%s", want, b.Text)
		}
	}
	if strings.Contains(b.Text, "bob@") || strings.Contains(b.Text, "It is on its way") {
		t.Errorf("the bounce says too much:\n%s", b.Text)
	}
	if r.box.AcceptedFor("bob@example.net") != 1 || r.box.AcceptedFor("shop@sandbox.example") != 1 {
		t.Error("one mail and one bounce should have been sent")
	}
}

// If there is nobody to tell, the log does.
func TestNoBounceToNobody(t *testing.T) {
	for name, from := range map[string]string{"a bounce": "", "a sender without a domain": "root", "a local sender": "root@localhost"} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, plan{})
			got := r.send(t.Context(), aMail, from, "bob@example.net", "suppressed@example.net")
			compare(t, got, `250 2\.0\.0 accepted `+queueID+` except <suppressed@example\.net>`)
			if n := len(r.box.Calls()); n != 2 {
				t.Errorf("the API got %d calls", n)
			}
			if l := r.lines("some recipients failed, and there is no sender to tell"); len(l) != 1 || l[0]["level"] != "ERROR" {
				t.Errorf("the log says %v", l)
			}
		})
	}
}

// If the bounce is lost, the reply must not be 250. The client comes again; nobody
// gets a second copy, and the bounce has the same key.
func TestABounceThatFailsIsNo250(t *testing.T) {
	for name, tt := range map[string]struct {
		queue Queue
		want  string
	}{"without a queue": {NoQueue{}, isDown}, "with a full queue": {&fakeQueue{err: errors.New("full")}, isFull}} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, plan{queue: tt.queue})
			hand := func() *reply.Reply {
				return r.send(t.Context(), withID, "down+2@sandbox.example", "bob@example.net", "invalid@example.net", "suppressed@example.net")
			}
			compare(t, hand(), tt.want)
			compare(t, hand(), tt.want) // suppressed@ is refused at RCPT now
			if l := r.lines("the bounce cannot be sent; the client was told to come again"); len(l) != 2 || l[0]["level"] != "ERROR" || l[0]["outcome"] != "unavailable" {
				t.Errorf("the log says %v", l)
			}
			compare(t, hand(), `250 2\.0\.0 accepted `+queueID+` except <invalid@example\.net>`)
			for to, want := range map[string]int{"bob@example.net": 1, "down+2@sandbox.example": 1} {
				if n := r.box.AcceptedFor(to); n != want {
					t.Errorf("%s got %d mails, want %d", to, n, want)
				}
			}
			if n := r.box.Stats().ByStatus[422]; n != 2 {
				t.Errorf("the API was asked %d times about who it refuses, want 2", n)
			}
			if untold, _ := r.opt.Tally.Untold(); untold != 0 {
				t.Errorf("%d count as untold", untold)
			}
		})
	}
}

// The queue gets the message as it came, and every outcome in the order of the
// recipients. It sends the bounce itself.
func TestTheQueueIsToldEverything(t *testing.T) {
	q := &fakeQueue{}
	r := newRig(t, plan{queue: q})
	got := r.sendMail("bob@example.net", "down@example.net", "suppressed@example.net", "bob@example.net")
	compare(t, got, keptIt)
	if q.kept() != 1 {
		t.Fatalf("the queue keeps %d mails", q.kept())
	}
	rest := q.rest[0]
	m := rest.Message
	if m.ID != strings.Fields(got.Text())[1] || string(m.Raw) != aMail || m.From != "shop@sandbox.example" ||
		m.Client.Addr != "127.0.0.1:4711" || m.Client.Session != "s1" || m.Client.Helo != "client.test" || m.Client.User != "app" || rest.Domain != "sandbox.example" {
		t.Errorf("the queue keeps %+v of %+v", m, rest)
	}
	want := map[string]relay.Kind{"bob@example.net": relay.Accepted, "down@example.net": relay.Unavailable, "suppressed@example.net": relay.Suppressed}
	if len(m.Recipients) != len(want) || len(rest.Outcomes) != len(want) {
		t.Fatalf("the queue keeps %v with %d outcomes", m.Recipients, len(rest.Outcomes))
	}
	for i, to := range m.Recipients {
		if rest.Outcomes[i].Kind != want[to] {
			t.Errorf("%s is %s, want %s", to, rest.Outcomes[i].Kind, want[to])
		}
	}
	if r.box.AcceptedFor("shop@sandbox.example") != 0 {
		t.Error("a bounce was sent beside the queue's")
	}
}

// Without a queue, the reply is 4xx if some recipients were accepted and some could
// not be tried. A 250 would lose those.
func TestSomeDownIsNotNow(t *testing.T) {
	r := newRig(t, plan{})
	compare(t, r.sendMail("bob@example.net", "down@example.net"), isDown)
	compare(t, r.sendMail("suppressed@example.net", "down@example.net"), isDown)
	// The suppressed recipient is known by now, and the client was told at RCPT.
	compare(t, r.sendMail("suppressed@example.net", "down@example.net"), isDown)
	if n := r.box.Stats().ByStatus[422]; n != 1 {
		t.Errorf("the API said %d times that a recipient is suppressed", n)
	}
	if n := r.box.AcceptedFor("shop@sandbox.example"); n != 0 {
		t.Errorf("%d bounces for a mail that was not taken", n)
	}
}

func TestALimitIsWaitedOut(t *testing.T) {
	r := newRig(t, plan{wait: patience})
	begin := time.Now()
	compare(t, r.sendMail("ratelimited+1x1@example.net"), `250 2\.0\.0 accepted .*`)
	if took := time.Since(begin); took < time.Second {
		t.Errorf("it took %s: Retry-After was not heeded", took)
	}
	if l := r.lines("recipient"); len(l) != 2 || l[0]["outcome"] != "rate_limited" || l[1]["outcome"] != "accepted" {
		t.Errorf("the log says %v", l)
	}
}

// Nobody waits for a turn that is known not to come in time, and nobody calls while
// the gate is closed.
func TestALongLimitIsToldAtOnce(t *testing.T) {
	r := newRig(t, plan{wait: patience})
	begin := time.Now()
	compare(t, r.sendMail("ratelimited+0x60@example.net"), `451 4\.3\.2 try again in 60 s`)
	compare(t, r.sendMail("bob@example.net"), `451 4\.3\.2 try again in (59|60) s`)
	if took := time.Since(begin); took > patience/2 {
		t.Errorf("it took %s", took)
	}
	if n := len(r.box.Calls()); n != 1 {
		t.Errorf("the API got %d calls", n)
	}
}

// The wait bounds how long a recipient waits for its turn. The API's time-out bounds a
// call that was made.
func TestTheWaitIsBounded(t *testing.T) {
	r := newRig(t, plan{wait: 100 * time.Millisecond, timeout: time.Second, concurrency: 1})
	begin := time.Now()
	got := r.sendMail("slow+300ms@example.net", "slow+300ms@example.org", "slow+300ms@example.com")
	compare(t, got, `451 4\.3\.2 try again in 1 s`)
	if took := time.Since(begin); took > patience/2 {
		t.Errorf("it took %s", took)
	}
	if n := len(r.box.Calls()); n != 1 {
		t.Errorf("the API got %d calls, want the one that had its turn", n)
	}
}

// A call that was made is waited for beyond the wait. Its recipient must not be in
// flight and refused at the same time.
func TestACallOutlivesTheWait(t *testing.T) {
	r := newRig(t, plan{wait: 50 * time.Millisecond, timeout: patience})
	compare(t, r.sendMail("slow+300ms@example.net"), `250 2\.0\.0 accepted `+queueID+` `+messageID)
}

func TestAHangingAPIIsBounded(t *testing.T) {
	r := newRig(t, plan{timeout: 200 * time.Millisecond})
	begin := time.Now()
	compare(t, r.sendMail("timeout@example.net", "timeout+2@example.net"), isDown)
	if took := time.Since(begin); took < 200*time.Millisecond || took > patience/2 {
		t.Errorf("it took %s", took)
	}
	for _, l := range r.lines("recipient") {
		if l["outcome"] != "ambiguous" { // it was written, and may have been sent
			t.Errorf("the log says %v", l)
		}
	}
}

// A hard end of the daemon does not end a call that has begun. The API may send the
// mail all the same, and the recipient would get it twice.
func TestTheEndOfTheDaemonEndsNoCall(t *testing.T) {
	begun, answer := make(chan struct{}), make(chan struct{})
	r := newRig(t, plan{timeout: patience, api: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		begun <- struct{}{}
		<-answer
		_, _ = io.WriteString(w, `{"message_id":"msg_1"}`)
	})})
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan *reply.Reply)
	go func() {
		done <- r.Message(ctx, envelope("shop@sandbox.example", "bob@example.net"), []byte(aMail))
	}()
	<-begun
	cancel()
	close(answer)
	compare(t, <-done, `250 2\.0\.0 accepted .*`)
}

// After EndCalls, a mail is queued at once.
func TestEndCalls(t *testing.T) {
	q := &fakeQueue{}
	r := newRig(t, plan{queue: q})
	r.EndCalls()
	compare(t, r.sendMail("bob@example.net"), `250 2\.0\.0 queued .*`)
	if n := len(r.box.Calls()); n != 0 {
		t.Errorf("the API got %d calls", n)
	}
}

// A client that sends a mail during a hard end of the daemon causes no calls.
func TestNoCallAfterTheEnd(t *testing.T) {
	r := newRig(t, plan{})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	compare(t, r.Message(ctx, envelope("shop@sandbox.example", "bob@example.net"), []byte(aMail)), `4.. 4\..*`)
	if n := len(r.box.Calls()); n != 0 {
		t.Errorf("the API got %d calls", n)
	}
}

// An outage opens the breaker. Then nobody waits for an API that is known to be down.
func TestAnOutageIsCheap(t *testing.T) {
	r := newRig(t, plan{timeout: 300 * time.Millisecond})
	if err := r.box.SetOutage(sandbox.OutageHang); err != nil {
		t.Fatal(err)
	}
	for range 5 {
		r.sendMail("bob@example.net")
	}
	begin := time.Now()
	compare(t, r.sendMail("bob@example.net"), isDown)
	if took := time.Since(begin); took > 200*time.Millisecond {
		t.Errorf("the client waited %s for an API that is known to be down", took)
	}
	if n := len(r.box.Calls()); n != 5 {
		t.Errorf("the API got %d calls", n)
	}
}

// A refused key is the operator's fault. It is logged as an error, and no mail
// bounces.
func TestAWrongKeyIsLoud(t *testing.T) {
	r := newRig(t, plan{})
	if err := r.box.SetKey("another"); err != nil {
		t.Fatal(err)
	}
	compare(t, r.sendMail("bob@example.net"), `451 4\.3\.5 .*`)
	if l := r.lines("recipient"); len(l) != 1 || l[0]["level"] != "ERROR" || l[0]["outcome"] != "unauthorized" {
		t.Errorf("the log says %v", l)
	}
	compare(t, r.sendMail("bob@example.net"), `451 4\.3\.5 .*`)
	if n := len(r.box.Calls()); n != 1 {
		t.Errorf("the API got %d calls with a key that it refuses", n)
	}
}

// The log has one line for each recipient and one for each message, which answer what
// happened to a mail.
func TestTheLog(t *testing.T) {
	r := newRig(t, plan{})
	got := r.sendMail("bob@example.net", "suppressed@example.net", "down@example.net")
	fields := []string{"attempt", "duration", "from", "id", "level", "message_id", "msg", "outcome", "status", "time", "to"}
	want := map[string][2]any{"bob@example.net": {"accepted", 200.0}, "suppressed@example.net": {"suppressed", 422.0}, "down@example.net": {"unavailable", 500.0}}
	lines := r.lines("recipient")
	if len(lines) != 3 {
		t.Errorf("%d lines for 3 recipients: %v", len(lines), lines)
	}
	ids := map[any]bool{}
	for _, l := range lines {
		ids[l["id"]] = true
		w := want[l["to"].(string)]
		if l["outcome"] != w[0] || l["status"] != w[1] || l["attempt"] != 1.0 || l["from"] != "shop@sandbox.example" || l["duration"].(float64) <= 0 {
			t.Errorf("the line is %v", l)
		}
		if (l["message_id"] != "") != (l["outcome"] == "accepted") {
			t.Errorf("the message_id is %q in %v", l["message_id"], l)
		}
		for _, f := range fields {
			if _, ok := l[f]; !ok {
				t.Errorf("the line has no %s: %v", f, slices.Sorted(maps.Keys(l)))
			}
		}
	}
	m := r.lines("message")
	if len(m) != 1 || len(ids) != 1 || !ids[m[0]["id"]] || m[0]["reply"] != got.String() || m[0]["session"] != "s1" || m[0]["client"] != "127.0.0.1:4711" {
		t.Errorf("the message's line is %v; ids are %v", m, ids)
	}
}

// Neither the content nor the key is in any log line at any level, or in any reply.
func TestNoSecretIsSaid(t *testing.T) {
	secrets := []string{key, "PlantedSubject", "PlantedText", "PlantedHTML", "PlantedHeader", "UGxhbnRlZA", "PlantedName"}
	raw := "From: PlantedName <shop@sandbox.example>\r\nSubject: PlantedSubject\r\nX-Planted: PlantedHeader\r\nMIME-Version: 1.0\r\n" +
		"Content-Type: multipart/mixed; boundary=x\r\n\r\n--x\r\nContent-Type: text/plain\r\n\r\nPlantedText\r\n" +
		"--x\r\nContent-Type: text/html\r\n\r\n<p>PlantedHTML</p>\r\n" +
		"--x\r\nContent-Type: application/octet-stream; name=f.bin\r\nContent-Disposition: attachment\r\nContent-Transfer-Encoding: base64\r\n\r\nUGxhbnRlZA==\r\n--x--\r\n"
	for _, to := range []string{"bob", "suppressed", "invalid", "badrequest", "toolarge", "ratelimited+0x30", "down", "forbidden", "redirect", "nojson", "noid", "timeout", "reset", "lost"} {
		for name, q := range map[string]Queue{"none": NoQueue{}, "full": &fakeQueue{err: errors.New(key + " PlantedText")}} {
			t.Run(to+" "+name, func(t *testing.T) {
				t.Parallel()
				r := newRig(t, plan{queue: q, timeout: time.Second, mapping: func(o *mail.Options) { o.Attachments = mail.StripAttachments }})
				said := []string{r.send(t.Context(), raw, "shop@sandbox.example", to+"@example.net", "bob@example.net").String()}
				if name == "none" { // what a queue says of itself is its own to keep clean
					said = append(said, r.log.String())
				}
				if len(r.lines("recipient")) == 0 {
					t.Fatal("nothing was tried: this test proves nothing")
				}
				for _, s := range said {
					for _, secret := range secrets {
						if strings.Contains(s, secret) {
							t.Errorf("%q is said:\n%s", secret, s)
						}
					}
				}
			})
		}
	}
}

// smtpd calls the backend from many goroutines at the same time.
func TestManyAtOnce(t *testing.T) {
	r := newRig(t, plan{timeout: patience})
	const clients = 20
	replies := make(chan *reply.Reply, clients)
	for range clients {
		go func() {
			replies <- r.Message(t.Context(), envelope("shop@sandbox.example", "bob@example.net", "eve@example.net"), []byte(aMail))
		}()
	}
	for range clients {
		compare(t, <-replies, `250 2\.0\.0 accepted `+queueID+` `+messageID+` `+messageID)
	}
	if s := r.box.Stats(); s.Accepted != 2*clients || s.Keys != 2*clients {
		t.Errorf("the sandbox counted %+v", s)
	}
}

// Recipient returns an error that reply.From understands, or a real nil: a typed nil
// would refuse everybody.
func TestRecipientTakesWhoIsNotKnown(t *testing.T) {
	r := newRig(t, plan{})
	var backend smtpd.Backend = r.Intake
	if err := backend.Recipient(t.Context(), envelope("shop@sandbox.example"), "bob@example.net"); err != nil {
		t.Errorf("bob is refused: %v", err)
	}
}

// If the API repeats the key, we do not.
func TestAnAPIThatEchoesTheKey(t *testing.T) {
	for _, status := range []int{200, 401, 422, 429, 500} {
		r := newRig(t, plan{api: func(w http.ResponseWriter, req *http.Request) {
			w.WriteHeader(status)
			_, _ = w.Write([]byte(`{"error":"e","message":"bad header Authorization: ` + req.Header.Get("Authorization") + `"}`))
		}, wait: 10 * time.Millisecond})
		got := r.sendMail("bob@example.net")
		if strings.Contains(got.String(), key) {
			t.Errorf("%d: the client is told %s", status, got)
		}
		if strings.Contains(r.log.String(), key) {
			t.Errorf("%d: the log has the key", status)
		}
	}
}
