package postgres

import (
	"context"
	"log/slog"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/smtp2rest/smtp2rest/internal/settings"
	"github.com/smtp2rest/smtp2rest/relay"
	"github.com/smtp2rest/smtp2rest/relay/pace"
	"github.com/smtp2rest/smtp2rest/relay/store/postgres/pgtest"
)

var _ pace.Ledger = (*Account)(nil)

// TestAccountRow: no change of a row is lost, whoever makes it at the same time; its time is
// the database's; and what is told reaches the other relays within a second.
func TestAccountRow(t *testing.T) {
	s := pgtest.Start(t)
	url := s.URL(s.Database())
	one, two := connect(t, url, Options{}), connect(t, url, Options{now: func() time.Time { return time.Now().Add(time.Hour) }})
	accounts := []*Account{one.Account(""), two.Account(""), two.Account("other")}
	const each = 30
	var all sync.WaitGroup
	for _, a := range accounts {
		for range 4 {
			all.Go(func() {
				for range each {
					err := a.Update(context.Background(), func(now time.Time, written []byte) ([]byte, bool) {
						if off := time.Since(now).Abs(); off > time.Minute {
							t.Errorf("the time is %s off", off)
						}
						n, _ := strconv.Atoi(string(written))
						return []byte(strconv.Itoa(n + 1)), false
					})
					if err != nil {
						t.Error(err)
					}
				}
			})
		}
	}
	all.Wait()
	read := func(a *Account, tell bool) (n int) {
		must(t, a.Update(t.Context(), func(_ time.Time, written []byte) ([]byte, bool) {
			n, _ = strconv.Atoi(string(written))
			return written, tell
		}))
		return n
	}
	if a, b := read(accounts[0], false), read(accounts[2], false); a != 8*each || b != 4*each {
		t.Errorf("after %d and %d changes the rows say %d and %d", 8*each, 4*each, a, b)
	}
	for _, a := range accounts { // they may have missed something before they listened
		select {
		case <-a.Changed():
		case <-time.After(10 * time.Second):
			t.Fatal("an account does not listen")
		}
	}
	asked := time.Now()
	read(accounts[0], true)
	<-accounts[1].Changed()
	if took := time.Since(asked); took > time.Second {
		t.Errorf("what is told comes after %s", took)
	}
	for _, a := range []*Account{accounts[0], accounts[2]} {
		select {
		case <-a.Changed():
			t.Errorf("the account %q is woken by what it told itself, or was told another", a.name)
		default:
		}
	}
	s.Stop()
	if err := accounts[0].Update(t.Context(), func(time.Time, []byte) ([]byte, bool) { return nil, false }); err == nil {
		t.Error("without a server nothing fails")
	}
}

// TestAccountShared: a pacer's 429 closes the gate of another, by a real database, and what
// was known outlives the relays.
func TestAccountShared(t *testing.T) {
	s := pgtest.Start(t)
	url := s.URL(s.Database())
	join := func() (*pace.Pacer, func()) {
		o := settings.Defaults[pace.Settings]()
		o.Rate = 50
		p := pace.New(pace.Options{Settings: o, Log: slog.New(slog.DiscardHandler)})
		stop, err := p.Share(t.Context(), connect(t, url, Options{}).Account(""))
		must(t, err)
		return p, stop
	}
	one, stopOne := join()
	two, stopTwo := join()
	pass, err := one.Enter(t.Context())
	must(t, err)
	pass.Leave(relay.Outcome{Kind: relay.RateLimited, Status: 429, RetryAfter: time.Hour})
	begun := time.Now()
	for two.State().PausedUntil.IsZero() {
		wait(t.Context(), 5*time.Millisecond)
	}
	took := time.Since(begun)
	t.Logf("the other gate was closed after %s", took)
	if took > 10*time.Second { // a second, on a machine that has nothing else to do
		t.Errorf("the other gate was closed after %s", took)
	}
	if a, b := one.State(), two.State(); a.Relays+b.Relays < 3 || a.Share+b.Share > 50.001 {
		t.Errorf("%+v, %+v", a, b)
	}
	stopOne()
	stopTwo()
	three, stopThree := join()
	defer stopThree()
	if st := three.State(); time.Until(st.PausedUntil) < 50*time.Minute || st.Relays != 1 || st.Share != 50 {
		t.Errorf("a relay that starts says %+v", st)
	}
}
