package deliver

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/smtp2rest/smtp2rest/relay"
	"github.com/smtp2rest/smtp2rest/relay/history"
)

// oneRecord is the history of one mail to bob@example.net, which the API took as msg_1.
type oneRecord struct {
	mail    history.Mail
	hidden  int   // how often Find does not see it yet
	fail    error // of the next Write
	written []history.Change
}

func newRecord(from string) *oneRecord {
	now := time.Now()
	return &oneRecord{mail: history.Mail{
		ID: relay.NewID(now), Received: now, Sender: from, Head: history.Head{MessageID: "m1@app.example", Subject: "Order 4711"},
		Recipients: []history.Recipient{{Addr: "bob@example.net", State: history.Sent, APIID: "msg_1"}},
	}}
}

func (o *oneRecord) Flush(context.Context) error { return nil }

func (o *oneRecord) Find(_ context.Context, q history.Query) ([]history.Mail, string, error) {
	if o.hidden--; o.hidden >= 0 || q.Name != "msg_1" {
		return nil, "", nil
	}
	return []history.Mail{o.mail}, "", nil
}

func (o *oneRecord) Get(context.Context, string) (history.Mail, bool, error) {
	return o.mail, true, nil
}

func (o *oneRecord) Write(_ context.Context, changes []history.Change) error {
	if err := o.fail; err != nil {
		o.fail = nil
		return err
	}
	o.written = append(o.written, changes...)
	for _, c := range changes {
		if c.ID == o.mail.ID {
			o.mail.Recipients[0].Steps = append(o.mail.Recipients[0].Steps, c.Recipients[0].Steps...)
		}
	}
	return nil
}

func hardBounce() relay.Event {
	return relay.Event{ID: "evt_1", Type: relay.EventHardBounce, MessageID: "msg_1", Email: "bob@example.net",
		BounceCode: "550", BounceReason: "no such user", Created: time.Now(), Received: time.Now()}
}

// late starts an engine with that record, and tells it of each event, which must succeed.
func late(t *testing.T, p plan, o *oneRecord, set func(*Settings), events ...relay.Event) (calls []string) {
	t.Helper()
	inBubbleStopped(t, p, func(r *rig) {
		r.engine.opt.Records = o
		now := *r.engine.set.Load()
		now.Late = true
		set(&now)
		r.engine.use(now)
		r.engine.Start()
		for _, e := range events {
			if e.ID == "" { // a pause
				r.pass(200 * time.Hour)
				continue
			}
			if err := r.engine.Late(context.Background(), e); err != nil && !errors.Is(err, errRecords) {
				t.Errorf("%s: %v", e.ID, err)
			}
		}
		r.pass(time.Minute)
		for _, c := range r.calls("") {
			calls = append(calls, c.To+": "+c.Subject+": "+textOf(t, c))
		}
	})
	return calls
}

var errRecords = errors.New("the disk is full")

// TestLateBouncesCountTowardsTheLimit: with those of failures at once.
func TestLateBouncesCountTowardsTheLimit(t *testing.T) {
	inBubbleStopped(t, plan{perHour: 1}, func(r *rig) {
		o := newRecord(shop)
		r.engine.opt.Records = o
		set := *r.engine.set.Load()
		set.Late = true
		r.engine.use(set)
		r.engine.Start()
		r.keep(shop, "Order 4712", "invalid@example.net")
		r.pass(time.Minute)
		if err := r.engine.Late(context.Background(), hardBounce()); err != nil {
			t.Fatal(err)
		}
		r.pass(time.Minute)
		if n := len(r.bounces()); n != 1 || o.mail.Recipients[0].Steps[0].What != history.StepNotTold {
			t.Errorf("%d bounces, %+v", n, o.mail.Recipients[0].Steps)
		}
	})
}

func unchanged(*Settings) {}

// TestWhoIsToldLate: as of any other failure, and at most once.
func TestWhoIsToldLate(t *testing.T) {
	complaint := hardBounce()
	complaint.ID, complaint.Type = "evt_2", relay.EventComplaint
	foreign := hardBounce()
	foreign.MessageID = "msg_2"
	nameless := hardBounce()
	nameless.MessageID = ""
	delivered := hardBounce()
	delivered.Type = relay.EventDelivered
	bob := func(change func(*oneRecord)) *oneRecord {
		o := newRecord(shop)
		change(o)
		return o
	}
	as := func(s history.State) func(*oneRecord) {
		return func(o *oneRecord) { o.mail.Recipients[0].State = s }
	}
	for name, tt := range map[string]struct {
		record *oneRecord
		set    func(*Settings)
		events []relay.Event
		to     string
		step   history.What
	}{
		"the sender":                   {newRecord(shop), unchanged, []relay.Event{hardBounce(), hardBounce(), complaint}, shop, history.StepTold},
		"after the bounce is gone":     {newRecord(shop), unchanged, []relay.Event{hardBounce(), {}, hardBounce()}, shop, history.StepTold},
		"the record fails once":        {bob(func(o *oneRecord) { o.fail = errRecords }), unchanged, []relay.Event{hardBounce(), hardBounce()}, shop, history.StepTold},
		"the record comes later":       {bob(func(o *oneRecord) { o.hidden = 3 }), unchanged, []relay.Event{hardBounce()}, shop, history.StepTold},
		"bounced already":              {bob(as(history.Bounced)), unchanged, []relay.Event{hardBounce()}, shop, history.StepTold},
		"the postmaster":               {newRecord("root@localhost"), unchanged, []relay.Event{hardBounce()}, "postmaster@sandbox.example", history.StepTold},
		"the null sender":              {newRecord(""), unchanged, []relay.Event{hardBounce(), hardBounce()}, "", history.StepNotTold},
		"a machine's answer":           {bob(func(o *oneRecord) { o.mail.AutoReply = true }), unchanged, []relay.Event{hardBounce()}, "", history.StepNotTold},
		"a copy for the archive":       {bob(func(o *oneRecord) { o.mail.Client.CopyOf = "x" }), unchanged, []relay.Event{hardBounce(), hardBounce()}, "", history.StepNotTold},
		"off":                          {newRecord(shop), func(s *Settings) { s.Late = false }, []relay.Event{hardBounce()}, "", ""},
		"a complaint":                  {newRecord(shop), unchanged, []relay.Event{complaint}, "", ""},
		"a complaint, where wanted":    {newRecord(shop), func(s *Settings) { s.Complaints = true }, []relay.Event{complaint, hardBounce()}, shop, history.StepTold},
		"not ours":                     {newRecord(shop), unchanged, []relay.Event{foreign, nameless, delivered}, "", ""},
		"dropped by an operator since": {bob(as(history.Dropped)), unchanged, []relay.Event{hardBounce()}, "", ""},
	} {
		t.Run(name, func(t *testing.T) {
			calls := late(t, plan{postmaster: "postmaster@sandbox.example"}, tt.record, tt.set, tt.events...)
			if tt.to == "" && len(calls) > 0 || tt.to != "" && (len(calls) != 1 || !strings.HasPrefix(calls[0], tt.to+": ")) {
				t.Fatalf("%q, want one to %q", calls, tt.to)
			}
			var steps []history.What
			for _, s := range tt.record.mail.Recipients[0].Steps {
				steps = append(steps, s.What)
			}
			if tt.step == "" && len(steps) > 0 || tt.step != "" && (len(steps) != 1 || steps[0] != tt.step) {
				t.Errorf("the steps are %q, want %q", steps, tt.step)
			}
			for _, want := range wordsOf(name) {
				if !strings.Contains(calls[0], want) {
					t.Errorf("there is no %q in\n%s", want, calls[0])
				}
			}
		})
	}
}

// wordsOf are the words of a bounce.
func wordsOf(name string) []string {
	switch name {
	case "the sender":
		return []string{"Your mail could not be delivered", "<bob@example.net>", "550 no such user", "Message-ID: <m1@app.example>", "Subject: Order 4711"}
	case "a complaint, where wanted":
		return []string{"Your mail was reported as spam", "<bob@example.net>"}
	}
	return nil
}

// Whoever can sign the events of one account says nothing about the mail of another.
func TestAnEventOfAnotherAccountTellsNobody(t *testing.T) {
	for account, told := range map[string]int{"": 0, "news": 0, "shop": 1} {
		o := newRecord(shop)
		o.mail.Account = "shop"
		event := hardBounce()
		event.Account = account
		late(t, plan{}, o, func(*Settings) {}, event)
		if len(o.written) != 2*told {
			t.Errorf("an event of account %q: %d changes of the record", account, len(o.written))
		}
	}
}
