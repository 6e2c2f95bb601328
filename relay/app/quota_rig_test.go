package app

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"testing"
	"time"

	"github.com/smtp2rest/smtp2rest/internal/settings"
	"github.com/smtp2rest/smtp2rest/relay"
	"github.com/smtp2rest/smtp2rest/relay/attempt"
	"github.com/smtp2rest/smtp2rest/relay/bounce"
	"github.com/smtp2rest/smtp2rest/relay/deliver"
	"github.com/smtp2rest/smtp2rest/relay/mail"
	"github.com/smtp2rest/smtp2rest/relay/pace"
	"github.com/smtp2rest/smtp2rest/relay/provider"
	"github.com/smtp2rest/smtp2rest/relay/provider/nexuspromail"
	"github.com/smtp2rest/smtp2rest/relay/provider/nexuspromail/sandbox"
	"github.com/smtp2rest/smtp2rest/relay/queue"
	"github.com/smtp2rest/smtp2rest/relay/retry"
	"github.com/smtp2rest/smtp2rest/relay/store"
	"github.com/smtp2rest/smtp2rest/relay/suppress"
)

// quota is one measurement: the queue and its workers, real, against an
// account that allows so much.
type quota struct {
	allowed    float64 // calls a second
	burst      int     // calls at once, that the account allows
	configured bool    // the relay was told the rate
	settle     time.Duration
	measure    time.Duration
}

// used is what came of it, in the time of the measurement.
type used struct {
	quota   float64 // of allowed times the time; a burst that was saved up can make it more than 1
	limited float64 // of the calls
}

func (u used) String() string {
	return fmt.Sprintf("%.2f %% of the quota used, %.2f %% of the calls answered 429", 100*u.quota, 100*u.limited)
}

// run offers ten times what is allowed for a minute, and goes on draining
// until it is measured. dial is nil for a real network.
func (q quota) run(t testing.TB, box *sandbox.Server, dial func(context.Context, string, string) (net.Conn, error)) used {
	s, err := store.Open(t.Context(), store.SQLite(t.TempDir()), store.Options{Part: store.OnlyQueue, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}()
	stop := q.start(t, box, s.Queue, dial)
	defer stop()
	offered := make(chan error, 1)
	go func() { offered <- q.offer(s.Queue) }()
	<-time.After(q.settle)
	before := box.Stats()
	<-time.After(q.measure)
	after := box.Stats()
	if err := <-offered; err != nil {
		t.Fatal(err)
	}
	calls := after.Calls - before.Calls
	return used{
		quota:   float64(after.Accepted-before.Accepted) / (q.allowed * q.measure.Seconds()),
		limited: float64(after.ByStatus[http.StatusTooManyRequests]-before.ByStatus[http.StatusTooManyRequests]) / float64(max(calls, 1)),
	}
}

// start wires the half of the daemon that drains the queue, as build does.
func (q quota) start(t testing.TB, box *sandbox.Server, store queue.Queue, dial func(context.Context, string, string) (net.Conn, error)) (stop func()) {
	const concurrency = 32
	url := box.URL()
	if dial != nil {
		url = "http://sandbox.example/api"
	}
	client, err := nexuspromail.New(provider.Connection{URL: url, Path: "/v1/transactional/send", Key: "sandbox-key", Timeouts: settings.Defaults[provider.Timeouts](), Concurrency: concurrency, Dial: dial})
	if err != nil {
		t.Fatal(err)
	}
	o := pace.Options{Settings: pace.Settings{Concurrency: concurrency, MaxPause: time.Hour}}
	if q.configured {
		o.Rate, o.Burst = q.allowed, int(q.allowed/10)
	}
	log := slog.New(slog.DiscardHandler)
	pacer := pace.New(o)
	from := relay.Address{Email: "hello@mail.example.com"}
	engine := deliver.New(deliver.Options{
		Settings: deliver.Settings{Mapping: provider.Mapping{Options: mail.Options{Default: from, Domains: []string{"mail.example.com"}}, Format: settings.Defaults[nexuspromail.Format]()}, Schedule: retry.Schedule{First: 5 * time.Second, Max: 15 * time.Minute, MaxAge: 48 * time.Hour}, Workers: concurrency - concurrency/4, KeepSent: time.Hour, Bounce: bounce.Options{From: from}},
		Queue:    store,
		Pace:     pacer,
		Log:      log,
		Attempts: attempt.New(attempt.Options{API: client, Pace: pacer, Suppressions: suppress.New(suppress.Options{Settings: settings.Defaults[suppress.Settings]()}), Log: log}),
	})
	engine.Start()
	return func() {
		engine.Stop(context.Background())
		client.Close()
	}
}

// offer enqueues ten times the quota for a minute, half a second's worth at
// a time.
func (q quota) offer(store queue.Queue) error {
	const steps = 120
	tick := time.NewTicker(time.Minute / steps)
	defer tick.Stop()
	raw := []byte("From: <app@mail.example.com>\r\nSubject: Hello\r\n\r\nThis is one of many.\r\n")
	sent := 0
	for step := 1; step <= steps; step++ {
		var mails []queue.Mail
		for ; sent < int(10*q.allowed*60/steps*float64(step)); sent++ {
			now := time.Now()
			m := queue.NewMail(relay.Message{
				ID: relay.NewID(now), From: fmt.Sprintf("app%d@mail.example.com", sent%7), ReceivedAt: now, Raw: raw,
				Recipients: []string{fmt.Sprintf("r%d@example.net", sent)},
			})
			m.Lane = m.Message.From
			mails = append(mails, m)
		}
		if err := store.Enqueue(context.Background(), mails...); err != nil {
			return err
		}
		<-tick.C
	}
	return nil
}
