//go:build linux

// Command bench measures the SQLite queue against a floor of its own: an
// append-only file whose writers share each fdatasync, which is the least that
// durable can cost on the machine. Both run in turn, so that other load
// disturbs both alike; what counts is their ratio.
//
//	go run ./relay/store/sqlite/internal/bench -dir /var/tmp
package main

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/smtp2rest/smtp2rest/relay"
	"github.com/smtp2rest/smtp2rest/relay/queue"
	"github.com/smtp2rest/smtp2rest/relay/store/sqlite"
)

type bench struct {
	dir     string
	rounds  int
	time    time.Duration
	body    []byte
	serial  atomic.Int64
	backlog int
}

func main() {
	var b bench
	flag.StringVar(&b.dir, "dir", os.TempDir(), "where to write; must be the disk to measure")
	flag.IntVar(&b.rounds, "rounds", 5, "rounds of floor and store each")
	flag.DurationVar(&b.time, "time", time.Second, "length of a round")
	flag.IntVar(&b.backlog, "backlog", 1_000_000, "recipients for the memory test; 0 leaves it out")
	large := flag.Bool("large", false, "measure bodies from 64 KiB to 10 MiB in the spool, and small mail beside them, instead")
	only := flag.Bool("enqueue", false, "compare enqueues with the floor, and measure nothing else")
	flag.Parse()
	b.body = bytes.Repeat([]byte("0123456789abcdef"), 256) // 4 KiB
	run := b.all
	switch {
	case *large:
		run = b.large
	case *only:
		run = b.enqueue
	}
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

func (b *bench) all() error {
	return errors.Join(b.enqueue(), b.drain(), b.reopen(), b.memory())
}

// enqueue compares durable enqueues with the floor at 1, 16 and 128 writers.
func (b *bench) enqueue() error {
	for _, writers := range []int{1, 16, 128} {
		var floors, stores, ratios []float64
		for range b.rounds {
			floor, err := b.floorRound(writers)
			if err != nil {
				return err
			}
			store, err := b.storeRound(writers)
			if err != nil {
				return err
			}
			floors, stores, ratios = append(floors, floor), append(stores, store), append(ratios, store/floor)
		}
		fmt.Printf("enqueue 4 KiB, %3d writers: floor %6.0f/s, store %6.0f/s, ratio %.2f (medians of %d; ratios %.2f to %.2f)\n",
			writers, median(floors), median(stores), median(ratios), b.rounds, slices.Min(ratios), slices.Max(ratios))
	}
	return nil
}

func median(v []float64) float64 {
	s := slices.Sorted(slices.Values(v))
	return s[len(s)/2]
}

// parallel runs f in n goroutines for the length of a round and returns calls
// per second.
func (b *bench) parallel(n int, f func() error) (float64, error) {
	var calls atomic.Int64
	var wg sync.WaitGroup
	errs := make([]error, n)
	begin := time.Now()
	end := begin.Add(b.time)
	for i := range n {
		wg.Go(func() {
			for time.Now().Before(end) {
				if err := f(); err != nil {
					errs[i] = err
					return
				}
				calls.Add(1)
			}
		})
	}
	wg.Wait()
	return float64(calls.Load()) / time.Since(begin).Seconds(), errors.Join(errs...)
}

func (b *bench) floorRound(writers int) (float64, error) {
	f, err := os.CreateTemp(b.dir, "floor")
	if err != nil {
		return 0, err
	}
	defer func() { _ = errors.Join(f.Close(), os.Remove(f.Name())) }()
	log := newFloor(f)
	defer log.stop()
	return b.parallel(writers, func() error { return log.append(b.body) })
}

func (b *bench) storeRound(writers int) (rate float64, err error) {
	err = b.inStore(func(dir string) error {
		s, err := open(dir)
		if err != nil {
			return err
		}
		rate, err = b.parallel(writers, func() error { return s.Enqueue(context.Background(), b.mail(1)) })
		return errors.Join(err, s.Close())
	})
	return rate, err
}

func open(dir string) (*sqlite.Store, error) {
	return sqlite.Open(sqlite.Options{Dir: dir, Queue: queue.Options{ForgetSent: true}, Log: slog.New(slog.NewTextHandler(io.Discard, nil))})
}

// inStore runs f with an empty data directory.
func (b *bench) inStore(f func(dir string) error) error {
	dir, err := os.MkdirTemp(b.dir, "queue")
	if err != nil {
		return err
	}
	return errors.Join(f(dir), os.RemoveAll(dir))
}

// mail is one of twenty senders'.
func (b *bench) mail(recipients int) queue.Mail {
	n := b.serial.Add(1)
	now := time.Now()
	sender := fmt.Sprintf("sender%d@example.com", n%20)
	to := make([]string, recipients)
	for i := range to {
		to[i] = fmt.Sprintf("user%d.%d@example.net", n, i)
	}
	m := queue.NewMail(relay.Message{ID: relay.NewID(now), From: sender, Recipients: to, Raw: b.body, ReceivedAt: now})
	m.Lane, m.Domain = sender, "example.com"
	return m
}

// fill enqueues mails of 4 KiB from many writers.
func (b *bench) fill(s *sqlite.Store, mails, recipients int) error {
	var wg sync.WaitGroup
	const writers = 16
	errs := make([]error, writers)
	for w := range writers {
		wg.Go(func() {
			for range mails / writers / 10 {
				batch := make([]queue.Mail, 10)
				for i := range batch {
					batch[i] = b.mail(recipients)
				}
				if err := s.Enqueue(context.Background(), batch...); err != nil {
					errs[w] = err
					return
				}
			}
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}

// drain measures claiming and settling, with every recipient settled by a
// call of its own as workers do it.
func (b *bench) drain() error {
	return b.inStore(func(dir string) error {
		s, err := open(dir)
		if err != nil {
			return err
		}
		const mails = 40000
		if err := b.fill(s, mails, 1); err != nil {
			return err
		}
		for _, workers := range []int{16, 64} {
			n, took, err := work(s, workers, mails/2)
			if err != nil {
				return err
			}
			fmt.Printf("claim and settle, %2d workers one at a time: %.0f recipients/s\n", workers, float64(n)/took.Seconds())
		}
		return s.Close()
	})
}

// work claims in bulk, hands out to workers, and settles each on its own.
func work(s *sqlite.Store, workers, total int) (int64, time.Duration, error) {
	begin := time.Now()
	claims := make(chan queue.Claim, 256)
	var settled atomic.Int64
	var wg sync.WaitGroup
	errs := make([]error, workers+1)
	wg.Go(func() {
		defer close(claims)
		for sum := 0; sum < total; {
			got, err := s.Claim(context.Background(), queue.ClaimRequest{Now: time.Now(), Max: min(128, total-sum)})
			if err != nil || len(got) == 0 {
				errs[workers] = err
				return
			}
			for _, c := range got {
				claims <- c
			}
			sum += len(got)
		}
	})
	for w := range workers {
		wg.Go(func() {
			for c := range claims {
				err := s.Settle(context.Background(), queue.Settlement{Token: c.Token, Result: queue.Done, At: time.Now(),
					Outcome: relay.Outcome{Kind: relay.Accepted, Status: 200, MessageID: "msg_" + c.Token.Mail}})
				errs[w] = cmp.Or(errs[w], err)
				settled.Add(1)
			}
		})
	}
	wg.Wait()
	return settled.Load(), time.Since(begin), errors.Join(errs...)
}

// reopen measures a start with 100,000 mails waiting.
func (b *bench) reopen() error {
	return b.inStore(func(dir string) error {
		s, err := open(dir)
		if err != nil {
			return err
		}
		if err := errors.Join(b.fill(s, 100_000, 1), s.Close()); err != nil {
			return err
		}
		var times []float64
		for range b.rounds {
			begin := time.Now()
			if s, err = open(dir); err != nil {
				return err
			}
			times = append(times, time.Since(begin).Seconds())
			if err := s.Close(); err != nil {
				return err
			}
		}
		fmt.Printf("reopen with 100,000 mails waiting: %.3f s (median)\n", median(times))
		begin := time.Now()
		if s, err = open(dir); err != nil {
			return err
		}
		n, took, err := work(s, 64, 100_000)
		fmt.Printf("drained %d in %v (%.0f/s)", n, took.Round(time.Millisecond), float64(n)/took.Seconds())
		for err == nil && diskUse(dir) > 8<<20 && time.Since(begin) < time.Minute {
			time.Sleep(10 * time.Millisecond)
		}
		fmt.Printf(", %d MiB left on disk %v later\n", diskUse(dir)>>20, (time.Since(begin) - took).Round(time.Millisecond))
		return errors.Join(err, s.Close())
	})
}

func diskUse(dir string) int64 {
	sum := int64(0)
	_ = filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		var st syscall.Stat_t
		if err == nil && !d.IsDir() && syscall.Stat(path, &st) == nil {
			sum += st.Blocks * 512
		}
		return nil
	})
	return sum
}

// memory measures what is resident with a large backlog, while it is claimed
// from and listed.
func (b *bench) memory() error {
	if b.backlog == 0 {
		return nil
	}
	return b.inStore(func(dir string) error {
		s, err := open(dir)
		if err != nil {
			return err
		}
		b.body = b.body[:1024]
		if err := errors.Join(b.fill(s, b.backlog/5, 5), s.Close()); err != nil {
			return err
		}
		begin := time.Now()
		if s, err = open(dir); err != nil {
			return err
		}
		opened := time.Since(begin)
		n, took, err := work(s, 64, 20000)
		if err != nil {
			return err
		}
		begin = time.Now()
		stats, err := s.Stats(context.Background())
		if err != nil {
			return err
		}
		statsTook := time.Since(begin)
		begin = time.Now()
		if _, _, err := s.List(context.Background(), queue.Filter{States: []queue.State{queue.Failed}}); err != nil {
			return err
		}
		fmt.Printf("%d recipients waiting: open %.2f s, %.0f claimed and settled/s, Stats %v, one List page %v\n",
			stats.Recipients[queue.Waiting], opened.Seconds(), float64(n)/took.Seconds(), statsTook, time.Since(begin))
		now, peak := resident()
		fmt.Printf("resident %d MiB now, %d MiB at the most since the program began (with 128 writers)\n", now>>10, peak>>10)
		return s.Close()
	})
}

// resident is the process's resident memory in KiB, and the most it ever was.
func resident() (now, peak int64) {
	b, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return 0, 0
	}
	for line := range bytes.Lines(b) {
		f := bytes.Fields(line)
		if len(f) < 2 {
			continue
		}
		n, _ := strconv.ParseInt(string(f[1]), 10, 64)
		switch string(f[0]) {
		case "VmRSS:":
			now = n
		case "VmHWM:":
			peak = n
		}
	}
	return now, peak
}
