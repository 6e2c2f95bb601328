//go:build linux

package sqlite

import (
	"bytes"
	"fmt"
	"os"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/smtp2rest/smtp2rest/relay"
	"github.com/smtp2rest/smtp2rest/relay/queue"
)

// The benchmarks write below TMPDIR, which must be on the disk to measure; one
// iteration is one round.
//
//	TMPDIR=/var/tmp go test ./relay/store/sqlite -run '^$' -bench Enqueue -benchtime 7x

// BenchmarkEnqueue compares durable enqueues of 4 KiB with a floor: an append-only
// file whose writers share each fdatasync, which is the least that durable can cost
// on the machine. Both run in turn for a second each, so that other load disturbs
// both alike; what counts is their ratio. Medians are told.
func BenchmarkEnqueue(b *testing.B) {
	for _, writers := range []int{1, 16, 128} {
		b.Run(fmt.Sprint("writers=", writers), func(b *testing.B) {
			body := bytes.Repeat([]byte("0123456789abcdef"), 256)
			var floors, stores, ratios []float64
			for b.Loop() {
				f := newFloor(b)
				floor := parallel(b, writers, func() error { return f.append(body) })
				f.stop()
				s := benchQueue(b, b.TempDir())
				store := parallel(b, writers, func() error { return s.Enqueue(ctx, benchMail(1, body)) })
				must(b, s.Close())
				floors, stores, ratios = append(floors, floor), append(stores, store), append(ratios, store/floor)
			}
			b.ReportMetric(median(floors), "floor/s")
			b.ReportMetric(median(stores), "store/s")
			b.ReportMetric(median(ratios), "ratio")
			b.ReportMetric(0, "ns/op")
		})
	}
}

// BenchmarkClaimAndSettle claims in bulk, and settles each recipient by a call of
// its own, as workers do.
func BenchmarkClaimAndSettle(b *testing.B) {
	for _, workers := range []int{16, 64} {
		b.Run(fmt.Sprint("workers=", workers), func(b *testing.B) {
			var rates []float64
			for b.Loop() {
				s := benchQueue(b, b.TempDir())
				fill(b, s, 20_000, 1, make([]byte, 4096))
				rates = append(rates, work(b, s, workers, 20_000))
				must(b, s.Close())
			}
			b.ReportMetric(median(rates), "recipients/s")
			b.ReportMetric(0, "ns/op")
		})
	}
}

// BenchmarkMillion opens a queue in which a million recipients wait, works on it,
// and says how much memory the process ever had.
func BenchmarkMillion(b *testing.B) {
	for b.Loop() {
		dir := b.TempDir()
		s := benchQueue(b, dir)
		fill(b, s, 200_000, 5, make([]byte, 1024))
		must(b, s.Close())
		begin := time.Now()
		s = benchQueue(b, dir)
		b.ReportMetric(time.Since(begin).Seconds(), "open-s")
		b.ReportMetric(work(b, s, 64, 20_000), "recipients/s")
		begin = time.Now()
		_, err := s.Stats(ctx)
		must(b, err)
		_, _, err = s.List(ctx, queue.Filter{States: []queue.State{queue.Failed}})
		must(b, err)
		b.ReportMetric(time.Since(begin).Seconds()*1000, "stats+list-ms")
		must(b, s.Close())
	}
	b.ReportMetric(float64(peakMemory(b)), "peak-MiB")
}

// BenchmarkLargeBodies writes bodies of several sizes, and small mail beside them.
// To compare files with the database, change spoolAbove.
func BenchmarkLargeBodies(b *testing.B) {
	for _, size := range []int{64 << 10, 128 << 10, 256 << 10, 1 << 20, 10 << 20} {
		b.Run(fmt.Sprintf("%dKiB", size>>10), func(b *testing.B) {
			body := make([]byte, size)
			var rates, small []float64
			for b.Loop() {
				s := benchQueue(b, b.TempDir())
				beside := make(chan []float64)
				stop := make(chan struct{})
				go func() {
					var took []float64
					for {
						select {
						case <-stop:
							beside <- took
							return
						default:
							begin := time.Now()
							must(b, s.Enqueue(ctx, benchMail(1, body[:4096])))
							took = append(took, time.Since(begin).Seconds()*1000)
						}
					}
				}()
				rates = append(rates, parallel(b, 4, func() error { return s.Enqueue(ctx, benchMail(1, body)) })*float64(size)/(1<<20))
				close(stop)
				small = append(small, median(<-beside))
				must(b, s.Close())
			}
			b.ReportMetric(median(rates), "MiB/s")
			b.ReportMetric(median(small), "small-ms")
			b.ReportMetric(0, "ns/op")
		})
	}
}

func benchQueue(b *testing.B, dir string) *Queue {
	b.Helper()
	s, err := OpenQueue(Options{Dir: dir, Queue: queue.Options{ForgetSent: true}, Log: quiet()})
	must(b, err)
	return s
}

// benchMail is one of twenty senders'.
func benchMail(recipients int, body []byte) queue.Mail {
	now := time.Now()
	m := queue.Mail{Message: relay.Message{ID: relay.NewID(now), Raw: body, ReceivedAt: now}}
	m.Message.From = fmt.Sprintf("sender%d@example.com", now.UnixNano()/1000%20)
	for i := range recipients {
		m.Message.Recipients = append(m.Message.Recipients, fmt.Sprintf("%s.%d@example.net", m.Message.ID, i))
	}
	m = queue.NewMail(m.Message)
	m.Lane, m.Domain = m.Message.From, "example.com"
	return m
}

// parallel runs f in n goroutines for a second and returns calls per second.
func parallel(b *testing.B, n int, f func() error) float64 {
	var calls atomic.Int64
	var wg sync.WaitGroup
	begin := time.Now()
	for range n {
		wg.Go(func() {
			for time.Since(begin) < time.Second {
				if err := f(); err != nil {
					b.Error(err)
					return
				}
				calls.Add(1)
			}
		})
	}
	wg.Wait()
	return float64(calls.Load()) / time.Since(begin).Seconds()
}

// fill enqueues mails from many writers, ten in a call.
func fill(b *testing.B, s *Queue, mails, recipients int, body []byte) {
	const writers, each = 16, 10
	var wg sync.WaitGroup
	for range writers {
		wg.Go(func() {
			for range mails / writers / each {
				var batch []queue.Mail
				for range each {
					batch = append(batch, benchMail(recipients, body))
				}
				if err := s.Enqueue(ctx, batch...); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
}

// work claims and settles, and returns recipients per second.
func work(b *testing.B, s *Queue, workers, total int) float64 {
	begin := time.Now()
	claims := make(chan queue.Claim, 256)
	var settled atomic.Int64
	var wg sync.WaitGroup
	wg.Go(func() {
		defer close(claims)
		for sum := 0; sum < total; {
			got, err := s.Claim(ctx, queue.ClaimRequest{Now: time.Now(), Max: min(128, total-sum)})
			if err != nil || len(got) == 0 {
				b.Errorf("%d claims, %v", len(got), err)
				return
			}
			for _, c := range got {
				claims <- c
			}
			sum += len(got)
		}
	})
	for range workers {
		wg.Go(func() {
			for c := range claims {
				o := relay.Outcome{Kind: relay.Accepted, Status: 200, MessageID: "msg_" + c.Token.Mail}
				if err := s.Settle(ctx, queue.Settlement{Token: c.Token, Result: queue.Done, At: time.Now(), Outcome: o}); err != nil {
					b.Error(err)
				}
				settled.Add(1)
			}
		})
	}
	wg.Wait()
	return float64(settled.Load()) / time.Since(begin).Seconds()
}

func median(v []float64) float64 { return slices.Sorted(slices.Values(v))[len(v)/2] }

// peakMemory is the most resident memory that the process ever had, in MiB.
func peakMemory(b *testing.B) int64 {
	status, err := os.ReadFile("/proc/self/status")
	must(b, err)
	_, rest, _ := bytes.Cut(status, []byte("VmHWM:"))
	kib, err := strconv.ParseInt(string(bytes.Fields(rest)[0]), 10, 64)
	must(b, err)
	return kib >> 10
}

// floor is an append-only file. Callers that wait are written together and share
// one fdatasync, as the store's callers share a commit.
type floor struct {
	f     *os.File
	calls chan floorCall
	ended chan error
}

type floorCall struct {
	body []byte
	done chan error
}

func newFloor(b *testing.B) *floor {
	f, err := os.CreateTemp(b.TempDir(), "floor")
	must(b, err)
	l := &floor{f: f, calls: make(chan floorCall), ended: make(chan error)}
	go l.loop()
	return l
}

func (l *floor) append(body []byte) error {
	c := floorCall{body: body, done: make(chan error, 1)}
	l.calls <- c
	return <-c.done
}

func (l *floor) stop() {
	close(l.calls)
	<-l.ended
}

func (l *floor) loop() {
	var buf []byte
	var group []floorCall
	for c := range l.calls {
		buf, group = append(buf[:0], c.body...), append(group[:0], c)
		for more := true; more && len(group) < batch; {
			select {
			case c, ok := <-l.calls:
				if more = ok; ok {
					buf, group = append(buf, c.body...), append(group, c)
				}
			default:
				more = false
			}
		}
		_, err := l.f.Write(buf)
		if err == nil {
			err = syscall.Fdatasync(int(l.f.Fd()))
		}
		for _, c := range group {
			c.done <- err
		}
	}
	l.ended <- l.f.Close()
}
