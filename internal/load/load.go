// Package load measures a server that takes mail over SMTP: it sends mail by many
// connections, and says how many mails were taken in a second and how long each took. A
// Sink plays what the server hands the mail on to, and counts what arrives of each mail.
// A Process says what the server's process uses meanwhile. 'smtp2rest bench' and
// scripts/bench are made of these.
package load

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"
)

// The ways to connect.
const (
	Plain    = "none"
	StartTLS = "starttls"
	TLS      = "tls"
)

// Options say what is sent, how, and for how long.
type Options struct {
	Address string // of the server
	Clients int    // connections at once
	Time    time.Duration
	Count   int     // mails in all, instead of Time
	Rate    float64 // mails a second, of all clients together; 0: each sends as fast as it is answered

	PerConnection int  // mails on one connection; 0: all
	Pipeline      bool // MAIL, RCPT and DATA in one write (RFC 2920)
	Security      string
	Certificates  *tls.Config // for Security; the server's name is set

	From, To   string // the address of the sender, and of the first recipient
	Recipients int    // of each mail
	Mail       Mail
}

// Check returns what is wrong with the options.
func (o Options) Check() error {
	switch {
	case !isAddress(o.Address):
		return fmt.Errorf("%q is not a host and a port, such as 127.0.0.1:2525", o.Address)
	case o.Clients < 1:
		return fmt.Errorf("%d clients: at least one is needed", o.Clients)
	case o.Recipients < 1:
		return fmt.Errorf("%d recipients: at least one is needed", o.Recipients)
	case o.Count < 0:
		return fmt.Errorf("%d mails: at least one is needed", o.Count)
	case o.Count == 0 && o.Time <= 0:
		return fmt.Errorf("neither a number of mails nor a time")
	case o.Rate != 0 && !(o.Rate >= leastRate && o.Rate <= mostRate): // NaN is neither
		return fmt.Errorf("a rate of %g: from %g to %g a second can be sent", o.Rate, leastRate, mostRate)
	case !isMailbox(o.From), !isMailbox(o.To):
		return fmt.Errorf("from %q to %q: write both as in user@example.com", o.From, o.To)
	case !slices.Contains([]string{Plain, StartTLS, TLS}, o.Security):
		return fmt.Errorf("TLS can be %s, %s or %s, not %q", Plain, StartTLS, TLS, o.Security)
	}
	return nil
}

// The rates that can be sent: a mail in a quarter of an hour, and more than any machine can.
const leastRate, mostRate = .001, 1e6

func isAddress(s string) bool {
	host, port, err := net.SplitHostPort(s)
	n, perr := strconv.ParseUint(port, 10, 16)
	return err == nil && host != "" && perr == nil && n > 0
}

func isMailbox(s string) bool {
	local, domain, ok := strings.Cut(s, "@")
	return ok && local != "" && domain != "" && !strings.ContainsAny(s, "<> \t\r\n")
}

// Result is what came of a run.
type Result struct {
	Accepted uint64 // mails answered 250
	// NotSent are mails that were due, with a rate, and for which no client was free
	// before the end.
	NotSent  int
	Failures map[string]int
	Took     time.Duration
	waits    []time.Duration // of accepted mails, and of those not sent until the end; sorted
	ids      []uint64        // of accepted mails
	prefix   uint32
	copies   int // of each mail that must arrive
}

// Rate returns how many mails were accepted in a second.
func (r *Result) Rate() float64 { return float64(r.Accepted) / r.Took.Seconds() }

// Wait returns how long the given share of mails took at most.
func (r *Result) Wait(share float64) time.Duration {
	if len(r.waits) == 0 {
		return 0
	}
	rank := int(math.Ceil(share*float64(len(r.waits))-1e-9)) - 1 // .99 of 100 are 99, whatever its last bits say
	return r.waits[min(max(rank, 0), len(r.waits)-1)]
}

// Failed returns the number of mails that were not accepted.
func (r *Result) Failed() (n int) {
	for _, of := range r.Failures {
		n += of
	}
	return n
}

// run is a run under way.
type run struct {
	Options
	prefix uint32 // of the number of each mail, so that mail of other runs is not counted
	began  time.Time
	next   atomic.Uint64
	sent   atomic.Int64 // mails that were begun

	mu     sync.Mutex
	result Result
}

// Run sends mail until the time is over, Count mails are sent, or ctx ends. How long a
// mail takes counts from the moment at which it was due: with a Rate, a mail that had to
// wait for a client to be free took that long as well.
func Run(ctx context.Context, o Options) (*Result, error) {
	if err := o.Check(); err != nil {
		return nil, err
	}
	var prefix [4]byte
	_, _ = rand.Read(prefix[:]) // never fails
	r := &run{Options: o, prefix: binary.BigEndian.Uint32(prefix[:]), began: time.Now()}
	r.result = Result{Failures: map[string]int{}, prefix: r.prefix, copies: o.Recipients}
	limited := ctx
	if o.Count == 0 {
		var cancel func()
		limited, cancel = context.WithTimeout(ctx, o.Time)
		defer cancel()
	}
	var clients sync.WaitGroup
	for range o.Clients {
		clients.Go(func() { r.client(limited) })
	}
	clients.Wait()
	r.result.Took = time.Since(r.began)
	if o.Count == 0 && o.Rate > 0 && ctx.Err() == nil {
		r.countNotSent()
	}
	r.result.Accepted = uint64(len(r.result.ids))
	slices.Sort(r.result.waits)
	return &r.result, nil
}

// countNotSent counts what was due before the end and not sent. A server that stops until
// then would look fast otherwise: such a mail took at least until the end.
func (r *run) countNotSent() {
	for n := r.sent.Load(); ; n++ {
		at := r.dueAt(uint64(n))
		if at >= r.Time {
			return
		}
		r.result.NotSent++
		r.result.waits = append(r.result.waits, r.Time-at)
	}
}

// dueAt is when a mail is due, from the beginning.
func (r *run) dueAt(n uint64) time.Duration {
	return time.Duration(float64(n) / r.Rate * float64(time.Second))
}

// due returns the number of the next mail and waits until it is to be sent. It returns
// false at the end of the run.
func (r *run) due(ctx context.Context) (n uint64, at time.Time, more bool) {
	n = r.next.Add(1) - 1
	if ctx.Err() != nil || r.Count > 0 && n >= uint64(r.Count) {
		return 0, at, false
	}
	at = time.Now()
	if r.Rate > 0 {
		at = r.began.Add(r.dueAt(n))
		if early := time.Until(at); early > 0 {
			timer := time.NewTimer(early)
			defer timer.Stop()
			select {
			case <-timer.C:
			case <-ctx.Done():
				return 0, at, false
			}
		}
	}
	r.sent.Add(1)
	return n, at, true
}

// client sends mail after mail, and connects again where a connection broke.
func (r *run) client(ctx context.Context) {
	var waits []time.Duration
	var ids []uint64
	failures := map[string]int{}
	c := newClient(&r.Options)
	defer func() {
		c.quit()
		r.mu.Lock()
		defer r.mu.Unlock()
		r.result.waits, r.result.ids = append(r.result.waits, waits...), append(r.result.ids, ids...)
		for why, n := range failures {
			count(r.result.Failures, why, n)
		}
	}()
	for {
		n, at, more := r.due(ctx)
		if !more {
			return
		}
		id := uint64(r.prefix)<<32 | n
		if err := c.send(ctx, id); err != nil {
			count(failures, failureOf(err), 1)
			if _, told := err.(*refusal); !told { // so that a server that is gone is not asked in a loop
				pause := time.NewTimer(100 * time.Millisecond)
				select {
				case <-pause.C:
				case <-ctx.Done():
				}
				pause.Stop()
			}
			continue
		}
		waits, ids = append(waits, time.Since(at)), append(ids, id)
	}
}

// mostFailures bounds the kinds of failures that are told apart: a reply can hold a
// number that is another each time.
const mostFailures = 20

func count(failures map[string]int, why string, n int) {
	if failures[why] == 0 && len(failures) >= mostFailures {
		why = "other failures"
	}
	failures[why] += n
}

// failureOf describes an error without its addresses.
func failureOf(err error) string {
	if broken, ok := errors.AsType[*net.OpError](err); ok {
		return broken.Op + ": " + broken.Err.Error()
	}
	return err.Error()
}
