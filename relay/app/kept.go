package app

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"syscall"
	"time"

	"github.com/smtp2rest/smtp2rest/relay/admin"
	"github.com/smtp2rest/smtp2rest/relay/config"
	"github.com/smtp2rest/smtp2rest/relay/forward"
	"github.com/smtp2rest/smtp2rest/relay/history"
	"github.com/smtp2rest/smtp2rest/relay/store"
	"github.com/smtp2rest/smtp2rest/relay/suppress"
)

// kept is what outlives a restart. With queue.mode = "none" nothing does: queue,
// records and recorder are nil, and the others forget.
type kept struct {
	place      store.Place
	queue      store.Queue
	records    store.Records
	recorder   *history.Recorder
	history    history.Noter // the recorder, if there is one
	suppressed *suppress.Split
	relays     func(context.Context) ([]admin.Relay, error) // nil: nobody shares the store
	account    func(name string) *store.Account             // nil: nobody shares the store
	forwards   forward.Store                                // nil where nothing is kept, or the engine keeps no events
	forwarder  *forward.Forwarder                           // nil without forwards
}

// openStore opens what is kept, if anything is, and begins to record the history.
func (d *daemon) openStore(ctx context.Context) (k kept, err error) {
	c, log := d.config(), d.opt.Log
	if c.Queue.Mode == config.NoQueue {
		return kept{history: history.Nothing{}, suppressed: suppress.NewSplit(suppress.NewMemory(0))}, nil
	}
	url := StoreURL(c)
	place, err := store.PlaceOf(url)
	if err != nil {
		return k, fmt.Errorf("store.url: %w", err)
	}
	s, err := store.Open(ctx, url, store.Options{Queue: queueOptions(c), Version: d.opt.Version, Log: log, Metrics: d.metrics})
	if err != nil {
		return k, storeError(place, err)
	}
	d.onStop(func(context.Context) error { return s.Close() })
	if err := s.Whole(ctx); err != nil {
		return k, fmt.Errorf("the store %s: %w", place.Name, err)
	}
	onReload(d, "queue", queueOptions, s.Prepare)
	if dir := place.Dir; dir != "" && endsWith(dir) != "" && !d.opt.Scratch {
		why := endsWith(dir)
		log.Warn("the queue will not outlive "+why+": name a directory on a disk by queue.data_dir or SMTP2REST_DATA_DIR, in a container a volume", "data_dir", dir)
	}

	d.onStatus(func(context.Context, time.Time) []admin.Warning { return recordsWarnings(s.Records, place) })
	d.metrics.MustRegister(admin.Collector(s.Queue))
	d.measureQueue(s.Queue)
	check := newStorageCheck(s.Queue)
	d.onStop(func(context.Context) error { check.end(); return nil })
	d.health.addLive(func(context.Context) error { return writes(s.Queue.Writing()) })
	d.health.addReady(
		func(ctx context.Context) error { _, err := check.check(ctx); return err },
		func(ctx context.Context) error { return room(ctx, s.Queue, d.config().Queue) })
	d.onStatus(func(ctx context.Context, _ time.Time) []admin.Warning {
		return storageWarnings(ctx, check, s.Queue, place, d.config().Queue)
	})

	forwarder, err := d.buildForwarder(s.Forwards)
	if err != nil {
		return k, err
	}
	facts := history.Options{Bounds: historyBounds(c), Store: s.Records, Log: log, Metrics: d.metrics}
	if forwarder != nil {
		facts.Before = forwarder.Outbox().Facts
	}
	recorder := history.NewRecorder(facts)
	if forwarder != nil {
		forwarder.Start(written{s.Records, recorder})
	}
	recorder.Start()
	d.onStop(func(context.Context) error { recorder.Stop(); return nil })
	onReload(d, "history", historyBounds, recorder.Prepare)
	d.onStop(reconcile(history.Reconciliation{Store: s.Records, Queued: s.Queue.Get, Noter: recorder, Before: d.started}, log))

	return kept{place: place, relays: relaysOf(s), account: s.Account, queue: s.Queue, records: s.Records, recorder: recorder, history: recorder, suppressed: suppress.NewSplit(s.Records), forwards: s.Forwards, forwarder: forwarder}, nil
}

// measureQueue adds the limits of the queue as metrics, so that alerts need no copy of the
// settings.
func (d *daemon) measureQueue(q store.Queue) {
	d.gauge("queue_mails_limit", "How many mails the queue may hold (queue.max_mails); 0 is no bound.", func() float64 { return float64(d.config().Queue.MaxMails) })
	d.gauge("queue_bytes_limit", "How many bytes the mails in the queue may have (queue.max_size); 0 is no bound.", func() float64 { return float64(d.config().Queue.MaxBytes) })
	d.gauge("storage_free_bytes_min", "How much of the disk is left free (queue.min_free, at least 32 MiB): with less no mail is queued.", func() float64 {
		_, kept, _ := q.Space()
		return float64(kept)
	})
}

// reconcile brings the history in line with the queue, while mail is sent, until stop.
func reconcile(r history.Reconciliation, log *slog.Logger) (stop func(context.Context) error) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		n, err := r.Run(ctx)
		if err != nil && ctx.Err() == nil {
			log.Error("the history cannot be brought in line with the queue; the next start tries again", "cause", err)
		}
		if n > 0 {
			log.Info("the process before this one ended without writing down what became of some recipients", "recipients", n)
		}
	}()
	return func(context.Context) error {
		cancel()
		<-done
		return nil
	}
}

// storeError says of what cannot be opened which setting leads there, and what helps.
func storeError(place store.Place, err error) error {
	switch {
	case place.Dir == "":
		return fmt.Errorf("store.url %s: %w", place.Name, err)
	case errors.Is(err, fs.ErrPermission):
		err = fmt.Errorf("%w; name a directory that this user may write to, by queue.data_dir or SMTP2REST_DATA_DIR", err)
	case errors.Is(err, syscall.ENOSPC):
		err = fmt.Errorf("%w; make room on its disk, or name a directory on another one, by queue.data_dir or SMTP2REST_DATA_DIR", err)
	case errors.Is(err, syscall.ENOTDIR):
		err = fmt.Errorf("%w; a file is in the way: name a directory, by queue.data_dir or SMTP2REST_DATA_DIR", err)
	case errors.Is(err, syscall.EROFS):
		err = fmt.Errorf("%w; in a container, mount a volume there", err)
	}
	return fmt.Errorf("queue.data_dir %s: %w", place.Dir, err)
}

// relaysOf returns the relays of a store, as operators see them.
func relaysOf(s *store.Store) func(context.Context) ([]admin.Relay, error) {
	if s.Relays == nil {
		return nil
	}
	return func(ctx context.Context) ([]admin.Relay, error) {
		relays, err := s.Relays(ctx)
		all := make([]admin.Relay, len(relays))
		for i, r := range relays {
			all[i] = admin.Relay(r)
		}
		return all, err
	}
}
