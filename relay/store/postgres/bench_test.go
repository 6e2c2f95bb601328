package postgres

import (
	"bytes"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/smtp2rest/smtp2rest/relay"
	"github.com/smtp2rest/smtp2rest/relay/queue"
	"github.com/smtp2rest/smtp2rest/relay/store/postgres/pgtest"
)

// These print figures and judge nothing. The server is on the same machine and syncs
// each commit. Run them on a disk:
//
//	go test ./relay/store/postgres -run '^$' -bench . -benchtime 3x

func benchServer(b *testing.B) *pgtest.Server {
	return pgtest.Start(b, "fsync=on", "shared_buffers=512MB", "max_wal_size=4GB")
}

func benchOpen(b *testing.B, s *pgtest.Server) opened {
	return start(b, Options{URL: s.URL(s.Database()), Queue: queue.Options{ForgetSent: true}})
}

// benchMail is one of so many lanes'.
func benchMail(lane int, body []byte) queue.Mail {
	m := newMail(fmt.Sprintf("sender%d@example.com", lane), "someone@example.net")
	m.Message.Raw = body
	return m
}

// BenchmarkEnqueue measures durable enqueues of 4 KiB, each a call of its own.
func BenchmarkEnqueue(b *testing.B) {
	s := benchServer(b)
	for _, writers := range []int{1, 16, 128} {
		b.Run(fmt.Sprint("writers=", writers), func(b *testing.B) {
			q, body := benchOpen(b, s), bytes.Repeat([]byte("0123456789abcdef"), 256)
			var rates []float64
			for b.Loop() {
				var calls atomic.Int64
				var wait sync.WaitGroup
				begun := time.Now()
				for w := range writers {
					wait.Go(func() {
						for time.Since(begun) < 2*time.Second {
							if err := q.Enqueue(b.Context(), benchMail(w%20, body)); err != nil {
								b.Error(err)
								return
							}
							calls.Add(1)
						}
					})
				}
				wait.Wait()
				rates = append(rates, float64(calls.Load())/time.Since(begun).Seconds())
			}
			report(b, rates, "accepts/s")
		})
	}
}

// BenchmarkClaimAndSettle claims in bulk and settles each recipient by a call of its
// own, as workers do.
func BenchmarkClaimAndSettle(b *testing.B) {
	s := benchServer(b)
	q := benchOpen(b, s)
	var rates []float64
	for b.Loop() {
		fill(b, q, 10_000, 20, make([]byte, 4096))
		rates = append(rates, work(b, q, 64, 10_000))
	}
	report(b, rates, "recipients/s")
}

// BenchmarkMillion claims where a million recipients wait in ten thousand lanes.
func BenchmarkMillion(b *testing.B) {
	s := benchServer(b)
	database := s.Database()
	q := start(b, Options{URL: s.URL(database), Queue: queue.Options{ForgetSent: true}})
	// As the function stores them, but for the way to the database.
	for from := 0; from < 1_000_000; from += 100_000 {
		s.Exec(database, fmt.Sprintf(`WITH m AS (INSERT INTO smtp2rest.mails
				SELECT nextval('smtp2rest.arrivals'), 'id' || i, '', 'lane' || i %% 10000, 'example.com', false, i, '{}', '', '', 1024, true, 0, false, 0
				FROM generate_series(%d, %d) i RETURNING seq, lane),
			b AS (INSERT INTO smtp2rest.bodies SELECT seq, 0, convert_to(repeat('x', 1024), 'UTF8') FROM m)
			INSERT INTO smtp2rest.recipients SELECT seq, 0, 0, false, false, 0, 0, 0, 1, 0, 0, 0, 0, '', '=example.com', lane, 'someone@example.net' FROM m`, from+1, from+100_000))
	}
	s.Exec(database, "INSERT INTO smtp2rest.counts VALUES (0, 0, 1000000, 0, 0, 0, 0, 1000000, 1024000000, 0, 0)")
	for b.Loop() {
		begun := time.Now()
		claims := q.claimAll(b, 100)
		b.ReportMetric(float64(time.Since(begun).Milliseconds()), "claim-100-ms")
		var back []queue.Settlement
		for _, c := range claims {
			back = append(back, queue.Settlement{Token: c.Token, Result: queue.Later, At: time.Now()})
		}
		must(b, q.Settle(b.Context(), back...))
		b.ReportMetric(work(b, q, 64, 20_000), "recipients/s")
		b.ReportMetric(0, "ns/op")
	}
}

func report(b *testing.B, rates []float64, unit string) {
	b.ReportMetric(slices.Sorted(slices.Values(rates))[len(rates)/2], unit)
	b.ReportMetric(0, "ns/op")
}

// fill enqueues mails from many writers, ten in a call.
func fill(b *testing.B, q opened, mails, lanes int, body []byte) {
	const writers, each = 16, 10
	var wait sync.WaitGroup
	for w := range writers {
		wait.Go(func() {
			for i := range mails / writers / each {
				var batch []queue.Mail
				for n := range each {
					batch = append(batch, benchMail((w*7919+i*each+n)%lanes, body))
				}
				if err := q.Enqueue(b.Context(), batch...); err != nil {
					b.Error(err)
					return
				}
			}
		})
	}
	wait.Wait()
}

// work claims and settles, and returns recipients per second.
func work(b *testing.B, q opened, workers, total int) float64 {
	begun := time.Now()
	claims := make(chan queue.Claim, 256)
	var settled atomic.Int64
	var wait sync.WaitGroup
	wait.Go(func() {
		defer close(claims)
		for sum := 0; sum < total; {
			got, err := q.Claim(b.Context(), queue.ClaimRequest{Now: time.Now(), Max: min(128, total-sum)})
			if err != nil {
				b.Error(err)
				return
			}
			if len(got) == 0 {
				return // fill rounds down
			}
			for _, c := range got {
				claims <- c
			}
			sum += len(got)
		}
	})
	for range workers {
		wait.Go(func() {
			for c := range claims {
				o := relay.Outcome{Kind: relay.Accepted, Status: 200, MessageID: "msg_" + c.Token.Mail}
				if err := q.Settle(b.Context(), queue.Settlement{Token: c.Token, Result: queue.Done, At: time.Now(), Outcome: o}); err != nil {
					b.Error(err)
				}
				settled.Add(1)
			}
		})
	}
	wait.Wait()
	return float64(settled.Load()) / time.Since(begun).Seconds()
}
