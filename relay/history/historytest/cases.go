package historytest

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/smtp2rest/smtp2rest/relay"
	"github.com/smtp2rest/smtp2rest/relay/history"
)

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
