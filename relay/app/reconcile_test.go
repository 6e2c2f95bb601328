package app

import (
	"testing"
	"time"

	"github.com/smtp2rest/smtp2rest/relay"
	"github.com/smtp2rest/smtp2rest/relay/history"
	"github.com/smtp2rest/smtp2rest/relay/queue"
	"github.com/smtp2rest/smtp2rest/relay/store"
)

// A crash takes the last moment of the history. The next start finds out, as far
// as the queue knows, what became of the recipients that wait by the record.
func TestTheHistoryIsReconciledWithTheQueue(t *testing.T) {
	dir, at := t.TempDir(), time.Now().Add(-time.Hour).Truncate(time.Millisecond)
	taken := relay.Outcome{Kind: relay.Accepted, Status: 200, MessageID: "msg_1"}
	ended := func(number int, addr string, s queue.State, o relay.Outcome) queue.Recipient {
		return queue.Recipient{Number: number, Addr: addr, State: s, Attempts: 1, Ended: at, History: []queue.Attempt{{Started: at, Outcome: o}}}
	}
	known := relay.Message{ID: relay.NewID(at), ReceivedAt: at, From: "shop@example.com", Raw: []byte("Subject: a\r\n\r\na\r\n"),
		Recipients: []string{"held@example.net", "sent@example.net", "refused@example.net", "old@example.net"}}
	gone := known
	gone.ID, gone.Recipients = relay.NewID(at.Add(time.Second)), []string{"gone@example.net"}

	s, err := store.Open(t.Context(), store.SQLite(dir), store.Options{})
	if err != nil {
		t.Fatal(err)
	}
	mail := queue.NewMail(known)
	mail.Recipients[0].State = queue.Held
	mail.Recipients[1] = ended(1, "sent@example.net", queue.Sent, taken)
	mail.Recipients[2] = ended(2, "refused@example.net", queue.Failed, relay.Outcome{Kind: relay.Refused, Status: 422})
	mail.Recipients[3] = ended(3, "old@example.net", queue.Failed, relay.Outcome{Kind: relay.Unavailable, Status: 500})
	if err := s.Queue.Enqueue(t.Context(), mail); err != nil {
		t.Fatal(err)
	}
	if err := s.Records.Write(t.Context(), history.Changes(history.NewCame(&known, history.Head{}), history.NewCame(&gone, history.Head{}))); err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}

	start(t, load(t, newSandbox(t).URL(), inDir(dir, "keep_sent = \"1h\"")))
	want := map[string]history.State{"held@example.net": history.Waiting, "sent@example.net": history.Sent, "refused@example.net": history.Failed,
		"old@example.net": history.Failed, "gone@example.net": history.Unknown}
	got := map[string]history.State{}
	ask := operator(t, dir)
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); {
		found, err := ask.Find(t.Context(), history.Query{})
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range found.Entries {
			r := m.Recipients[0]
			got[r.Addr] = r.State
			if r.Addr == "sent@example.net" && r.State == history.Sent && r.APIID != "msg_1" {
				t.Errorf("the API's id is %q", r.APIID)
			}
		}
		if got["gone@example.net"] == history.Unknown && got["sent@example.net"] == history.Sent {
			break
		}
	}
	for addr, state := range want {
		if got[addr] != state {
			t.Errorf("<%s> is %s, want %s", addr, got[addr], state)
		}
	}
}
