// Package kill kills the relay under load, again and again, and judges what came
// of the mail that it had answered 250.
package kill

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/textproto"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/smtp2rest/smtp2rest/relay/attempt"
	"github.com/smtp2rest/smtp2rest/relay/queue"
	"github.com/smtp2rest/smtp2rest/relay/store"
	"github.com/smtp2rest/smtp2rest/test/harness"
)

func TestMain(m *testing.M) { os.Exit(harness.Main(m)) }

var (
	killRounds = flag.Int("kill.rounds", 0, "how often TestKill kills the relay; 0 is 6 times, and 40 with SMTP2REST_TEST=all")
	killSeed   = flag.Uint64("kill.seed", 0, "repeat the choices of a run of TestKill; 0 is new ones")
)

// The load: clients at once, and mails a round between them.
const (
	killClients = 24
	killMails   = 250
)

// killRig is one test: the relay in its lives, its provider, its clients.
type killRig struct {
	t        *testing.T
	dir      string // evidence
	data     string // the relay's data directory
	binary   string
	seed     uint64
	r        *rand.Rand // of the test itself
	provider *killProvider
	life     int
	relay    *killRelay              // the latest
	unknown  map[int]map[string]bool // by life: the keys whose attempt was not settled when it ended

	tickets      chan struct{} // one for each mail that may be handed over
	closeTickets func()
	clients      sync.WaitGroup
	stop         context.CancelFunc // cuts the clients off

	accounts *killAccounts // nil: the relay has one account

	mu       sync.Mutex
	address  string
	at       int           // the life that listens there
	moved    chan struct{} // closed when the address changes
	kept     []*killMail   // answered 250
	unknowns []*killMail   // handed over, and never answered
	refused  []string      // what else was said
}

func newKillRig(t *testing.T, accounts ...string) *killRig {
	dir, err := os.MkdirTemp("", "smtp2rest-kill-")
	if err != nil {
		t.Fatal(err)
	}
	rig := &killRig{
		t: t, dir: dir, data: filepath.Join(dir, "data"), binary: killBinary(t, dir), seed: *killSeed,
		provider: newKillProvider(t, accounts...), unknown: map[int]map[string]bool{},
		tickets: make(chan struct{}, 1<<20), moved: make(chan struct{}),
	}
	if rig.seed == 0 {
		rig.seed = rand.Uint64()
	}
	rig.r = rand.New(rand.NewPCG(rig.seed, 0))
	if len(accounts) > 0 {
		rig.accounts = newKillAccounts(accounts)
	}
	rig.closeTickets = sync.OnceFunc(func() { close(rig.tickets) })
	ctx, stop := context.WithCancel(context.Background())
	rig.stop = stop
	t.Cleanup(rig.cleanUp)
	for n := range killClients {
		rig.clients.Go(func() { rig.client(ctx, n) })
	}
	return rig
}

func (rig *killRig) cleanUp() {
	rig.stop()
	rig.closeTickets()
	if rig.relay != nil {
		_ = rig.relay.cmd.Process.Kill() // mostly gone already
		<-rig.relay.ended
	}
	rig.clients.Wait()
	if rig.t.Failed() {
		rig.t.Logf("seed %d; data and logs are kept in %s", rig.seed, rig.dir)
		return
	}
	_ = os.RemoveAll(rig.dir)
}

func (rig *killRig) fail(format string, args ...any) {
	rig.t.Helper()
	rig.t.Fatalf(format, args...)
}

// client hands mails over, one for each ticket, to whichever life listens.
func (rig *killRig) client(ctx context.Context, number int) {
	r := rand.New(rand.NewPCG(rig.seed, uint64(number)+1))
	var s *killSession
	life := 0
	for n := 0; ; n++ {
		if _, more := <-rig.tickets; !more || ctx.Err() != nil {
			if s != nil {
				s.quit()
			}
			return
		}
		m := newKillMail(r, rig.accounts.id(r, fmt.Sprintf("m%d-%d", number, n)))
		for !m.sent && ctx.Err() == nil {
			if s == nil {
				s, life = rig.connect(ctx, life)
				continue
			}
			rig.accounts.handed(m.id, life+1)
			err := s.send(m)
			rig.record(m, err)
			if err != nil {
				_ = s.conn.Close()
				s = nil
			}
		}
	}
}

// connect waits for a life after the one that failed.
func (rig *killRig) connect(ctx context.Context, after int) (*killSession, int) {
	for {
		rig.mu.Lock()
		address, life, moved := rig.address, rig.at, rig.moved
		rig.mu.Unlock()
		if life > after {
			s, err := dialKill(address)
			if err != nil {
				return nil, life
			}
			return s, life - 1 // the same life may be dialled again
		}
		select {
		case <-moved:
		case <-ctx.Done():
			return nil, after
		}
	}
}

func (rig *killRig) record(m *killMail, err error) {
	rig.mu.Lock()
	defer rig.mu.Unlock()
	var said *textproto.Error
	switch {
	case errors.As(err, &said) && said.Code != 421:
		rig.refused = append(rig.refused, fmt.Sprintf("%s: %v", m.id, said))
		m.sent = true // not again
	case m.kept():
		rig.kept = append(rig.kept, m)
	case m.reply != "":
		rig.refused = append(rig.refused, m.id+": "+m.reply)
	case m.sent:
		rig.unknowns = append(rig.unknowns, m)
	}
}

// listen tells the clients where the relay is.
func (rig *killRig) listen(address string, life int) {
	rig.mu.Lock()
	defer rig.mu.Unlock()
	rig.address, rig.at = address, life
	close(rig.moved)
	rig.moved = make(chan struct{})
}

// ready waits until a life listens and tells the clients. It is false when the
// time is over.
func (rig *killRig) ready(r *killRelay, within <-chan time.Time) bool {
	select {
	case address := <-r.log.ready:
		rig.listen(address, r.life)
		return true
	case <-r.ended:
		rig.fail("life %d did not start: %v", r.life, r.err)
	case <-within:
	}
	return false
}

func (rig *killRig) load(mails int) {
	for range mails {
		rig.tickets <- struct{}{}
	}
}

// look notes the attempts that were not settled when a life ended. It asks
// the queue itself, on a copy: what it finds there is what the next life will.
func (rig *killRig) look(r *killRelay) {
	rig.t.Helper()
	unknown := map[string]bool{}
	rig.unknown[r.life] = unknown
	dir := filepath.Join(rig.dir, "copy")
	defer func() { _ = os.RemoveAll(dir) }()
	if err := os.MkdirAll(dir, 0o700); err != nil {
		rig.t.Fatal(err)
	}
	for _, name := range []string{"queue.db", "queue.db-wal"} {
		b, err := os.ReadFile(filepath.Join(rig.data, name))
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err == nil {
			err = os.WriteFile(filepath.Join(dir, name), b, 0o600)
		}
		if err != nil {
			rig.t.Fatal(err)
		}
	}
	store := rig.open(dir)
	defer rig.close(store)
	for _, account := range append([]string{""}, rig.accounts.all()...) {
		rig.lookAt(store, account, unknown)
	}
}

// lookAt adds the attempts of an account that were not settled.
func (rig *killRig) lookAt(store store.Queue, account string, unknown map[string]bool) {
	rig.t.Helper()
	for later := time.Now().Add(1000 * time.Hour); ; {
		claims, err := store.Claim(context.Background(), queue.ClaimRequest{Account: account, Now: later, Max: 1000})
		if err != nil {
			rig.fail("after life %d the queue cannot be claimed from: %v", rig.life, err)
		}
		if len(claims) == 0 {
			return
		}
		for _, c := range claims {
			if c.Unknown {
				unknown[attempt.IdempotencyKey(c.Mail.Message.ID, c.Addr)] = true
			}
		}
	}
}

func (rig *killRig) open(dir string) store.Queue {
	rig.t.Helper()
	s, err := store.Open(context.Background(), store.SQLite(dir), store.Options{Part: store.OnlyQueue, Log: slog.New(slog.DiscardHandler)})
	if err != nil {
		rig.fail("after life %d the queue cannot be opened: %v", rig.life, err)
	}
	return s.Queue
}

func (rig *killRig) close(q store.Queue) {
	if err := q.Close(); err != nil {
		rig.t.Error(err)
	}
}

// upTo draws a moment.
func (rig *killRig) upTo(d time.Duration) time.Duration {
	return time.Duration(rig.r.Int64N(int64(d)))
}

// round is one life: how it is configured, and when it is killed.
func (rig *killRig) round() {
	rig.t.Helper()
	wait := []string{"10s", "10s", "20ms", "0s", "0s"}[rig.r.IntN(5)]
	rig.provider.delay(rig.t, time.Duration(rig.r.IntN(30))*time.Millisecond)
	rig.load(killMails)
	r := rig.start(wait)
	switch rig.r.IntN(4) {
	case 0: // while it starts, as far as that goes
		if rig.ready(r, time.After(rig.upTo(80*time.Millisecond))) {
			break
		}
	default:
		if !rig.ready(r, time.After(30*time.Second)) {
			rig.fail("life %d does not listen", r.life)
		}
		<-time.After(rig.upTo(time.Second))
		if rig.accounts != nil {
			rig.disturb(r)
		}
	}
	rig.end(r, syscall.SIGKILL)
	rig.look(r)
}

// TestKill kills the relay again and again under load, at any moment of its
// life, and counts what came of the mail that it had answered 250.
func TestKill(t *testing.T) {
	rounds := *killRounds
	switch {
	case rounds > 0:
	case harness.All():
		rounds = 40
	default:
		rounds = 6
	}
	rig := newKillRig(t)
	for range rounds {
		rig.round()
	}
	rig.drain()
	sum := rig.judge(rounds)
	if rounds >= 15 && (len(rig.kept) < 100*rounds || sum.unsettled == 0 || len(rig.unknowns) == 0 || sum.lost == 0) {
		t.Error("the load did not bring about what is to be tested")
	}
}

// TestTerminate ends the relay in order, again and again under load: every
// mail that was handed over gets its reply, no attempt is left unsettled, and
// nothing but a lost answer makes a second copy.
func TestTerminate(t *testing.T) {
	const rounds = 4
	rig := newKillRig(t)
	for n := range rounds {
		rig.load(killMails)
		r := rig.awaitStart([]string{"10s", "0s"}[n%2])
		<-time.After(rig.upTo(600 * time.Millisecond))
		rig.terminate(r)
	}
	rig.drain()
	if sum := rig.judge(rounds); sum.twice > 0 || sum.unsettled > 0 || len(rig.unknowns) > 0 {
		t.Errorf("an orderly end left %d attempts unsettled and %d mails without a reply, and sent to %d twice",
			sum.unsettled, len(rig.unknowns), sum.twice)
	}
}
