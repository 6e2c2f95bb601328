package store_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/smtp2rest/smtp2rest/relay"
	"github.com/smtp2rest/smtp2rest/relay/history"
	"github.com/smtp2rest/smtp2rest/relay/queue"
	"github.com/smtp2rest/smtp2rest/relay/store"
	"github.com/smtp2rest/smtp2rest/relay/suppress"
)

// TestMigrate: everything comes through there and back, however often it was ended on the
// way; and no relay starts on a store that is not whole or was left.
func TestMigrate(t *testing.T) {
	disk, server := directories(t), databases(t)
	first, _, err := disk()
	must(t, err)
	middle, _, err := server()
	must(t, err)
	last, _, err := disk()
	must(t, err)
	ids := fill(t, first)
	there := migrate(t, first, middle)
	back := migrate(t, middle, last)
	if there.Mails != int64(len(ids)) || back.Mails != there.Mails || back.Marks != there.Marks || fmt.Sprint(back.Rows) != fmt.Sprint(there.Rows) {
		t.Errorf("there %+v, back %+v", there, back)
	}
	for table, n := range there.Rows {
		if n == 0 {
			t.Errorf("the test has no %s", table)
		}
	}
	compareStores(t, first, last, ids)
}

// migrate is a migration that is ended again and again.
func migrate(t *testing.T, from, to string) store.Moved {
	m := store.Migration{From: from, To: to, Log: slog.New(slog.DiscardHandler)}
	for steps := 1; ; steps *= 4 {
		ctx, cancel := context.WithCancel(t.Context())
		left := steps
		m.Progress = func(store.Progress) {
			if left--; left == 0 {
				cancel()
			}
		}
		moved, err := m.Run(ctx)
		cancel()
		if err == nil {
			startable(t, to, "")
			startable(t, from, "was moved to")
			if _, err := m.Run(t.Context()); err == nil {
				t.Error("it was moved again")
			}
			return moved
		}
		if !errors.Is(err, context.Canceled) {
			t.Fatal(err)
		}
		startable(t, from, "is being moved to")
		startable(t, to, "is being moved here")
	}
}

// startable opens a store as a relay does.
func startable(t *testing.T, url, want string) {
	t.Helper()
	s, err := open(url, store.Options{})
	must(t, err)
	defer func() { must(t, s.Close()) }()
	if err := s.Whole(t.Context()); (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
		t.Errorf("%v, want %q", err, want)
	}
}

// fill puts one of everything into a store, and some hundred mails.
func fill(t *testing.T, url string) (ids []string) {
	s, err := open(url, store.Options{})
	must(t, err)
	defer func() { must(t, s.Close()) }()
	ctx, now := t.Context(), time.Now().Truncate(time.Millisecond).UTC()
	attempt := queue.Attempt{Started: now.Add(-time.Minute), Outcome: relay.Outcome{Kind: relay.RateLimited, Status: 429, Detail: "slower", RetryAfter: time.Second, Cause: errors.New("why")}, NotAnAttempt: true}
	for i := range 150 {
		m := queue.NewMail(relay.Message{ID: relay.NewID(now), From: fmt.Sprintf("s%d@x.example", i%7), ReceivedAt: now.Add(-time.Hour), Account: []string{"", "shop"}[i%2],
			Raw: []byte(strings.Repeat("word ", i*i)), Recipients: []string{"a@y.example", "b@y.example", "c@y.example"}, Client: relay.Client{User: "u", Helo: "h"}})
		m.Lane, m.Domain, m.Urgent = m.Message.From, "x.example", i%5 == 0
		m.Recipients[0].History, m.Recipients[0].Attempts, m.Recipients[0].Due = []queue.Attempt{attempt}, 1, now.Add(time.Hour)
		m.Recipients[1].State, m.Recipients[1].Ended = queue.Sent, now
		m.Recipients[2].State = []queue.State{queue.Held, queue.Failed}[i%2]
		must(t, s.Queue.Enqueue(ctx, m))
		ids = append(ids, m.Message.ID)
	}
	must(t, s.Queue.SetMark(ctx, "gate", "closed"))
	e := suppress.Entry{Address: "a@x.example", Reason: suppress.HardBounce, Source: suppress.Webhook, Since: now, Expires: now.Add(time.Hour), Event: "evt", Detail: "d", Note: "n"}
	for i := range 700 { // more than one step
		e.Address = fmt.Sprintf("a%d@x.example", i)
		_, err := s.Records.TakeEvent(ctx, relay.Event{ID: "evt" + e.Address, Type: "bounced.hard", Email: e.Address, MessageID: fmt.Sprint("m", i), Created: now, Occurred: now, Received: now}, e.Address, &e)
		must(t, err)
	}
	_, err = s.Records.Remove(ctx, []string{"gone@x.example"}, now)
	must(t, err)
	for i, id := range ids[:20] {
		came := history.NewCame(&relay.Message{ID: id, From: "s@x.example", ReceivedAt: now, Recipients: []string{"a@y.example", "b@y.example"}, Account: []string{"", "shop"}[i%2]}, history.Head{Subject: "s\x01", MessageID: "<x>"})
		must(t, s.Records.Write(ctx, history.Changes(came, history.Tried{ID: id, To: "a@y.example", Number: 1, Outcome: relay.Outcome{Kind: relay.Accepted, MessageID: fmt.Sprint("m", i)}, At: now})))
	}
	_, err = s.Records.Forget(ctx, "nobody@x.example", []string{"forgotten"})
	must(t, err)
	return ids
}

func compareStores(t *testing.T, first, last string, ids []string) {
	a, err := open(first, store.Options{Existing: true})
	must(t, err)
	defer func() { must(t, a.Close()) }()
	b, err := open(last, store.Options{Existing: true})
	must(t, err)
	defer func() { must(t, b.Close()) }()
	for _, id := range ids {
		was, err := a.Queue.Get(t.Context(), id)
		must(t, err)
		is, err := b.Queue.Get(t.Context(), id)
		must(t, err)
		if fmt.Sprintf("%+v", was) != fmt.Sprintf("%+v", is) {
			t.Fatalf("a mail was\n%+v\nand is\n%+v", was, is)
		}
		told, _, err := a.Records.Get(t.Context(), id)
		must(t, err)
		tells, _, err := b.Records.Get(t.Context(), id)
		must(t, err)
		if was, is := asJSON(t, told), asJSON(t, tells); was != is {
			t.Fatalf("its record was\n%s\nand is\n%s", was, is)
		}
	}
}

func asJSON(t *testing.T, v any) string {
	t.Helper()
	text, err := json.Marshal(v)
	must(t, err)
	return string(text)
}
