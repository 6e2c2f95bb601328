package kill

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/smtp"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/smtp2rest/smtp2rest/relay/provider/nexuspromail/sandbox"
	"github.com/smtp2rest/smtp2rest/relay/store/postgres/pgtest"
	"github.com/smtp2rest/smtp2rest/test/harness"
)

const (
	sharedRate    = 60 // calls a second that the account allows: little, so that no machine is too slow
	sharedWorkers = 12 // attempts at queued mail that a relay makes at once: three quarters of its calls
	sharedPause   = 5 * time.Second
)

// sharedAccount is the sandbox behind a look at every call.
type sharedAccount struct {
	box     *sandbox.Server
	address string
	handler http.Handler

	mu       sync.Mutex
	took     map[string]int // recipients whose mail was taken, and how often
	calls    int
	limited  int
	pause    bool        // the next call is answered 429
	paused   time.Time   // when that was
	late     []time.Time // calls since
	accepted int
}

func newSharedAccount(t *testing.T) *sharedAccount {
	a := &sharedAccount{took: map[string]int{}}
	a.box = sandbox.New(sandbox.Options{Rate: sharedRate, Burst: sharedRate / 2, Latency: 30 * time.Millisecond, Keep: -1})
	a.handler = a.box.Handler()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	a.address = ln.Addr().String()
	web := &http.Server{Handler: a, ReadHeaderTimeout: 10 * time.Second}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = web.Serve(ln) // until Close
	}()
	t.Cleanup(func() {
		_ = web.Close()
		<-done
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		if err := a.box.Stop(ctx); err != nil {
			t.Error(err)
		}
	})
	return a
}

func (a *sharedAccount) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	a.mu.Lock()
	a.calls++
	if a.late = append(a.late, time.Now()); a.pause {
		a.pause, a.paused, a.late = false, time.Now(), nil
		a.mu.Unlock()
		w.Header().Set("Retry-After", fmt.Sprint(int(sharedPause.Seconds())))
		w.WriteHeader(http.StatusTooManyRequests)
		return
	}
	a.mu.Unlock()
	body, err := io.ReadAll(r.Body)
	var call struct{ To struct{ Email string } }
	if err != nil || json.Unmarshal(body, &call) != nil {
		w.WriteHeader(http.StatusBadRequest) // the relay died in the middle of its request
		return
	}
	r.Body = io.NopCloser(bytes.NewReader(body))
	answer := &killAnswer{ResponseWriter: w}
	a.handler.ServeHTTP(answer, r)
	a.mu.Lock()
	defer a.mu.Unlock()
	switch answer.status {
	case http.StatusOK:
		a.took[call.To.Email]++
		a.accepted++
	case http.StatusTooManyRequests:
		a.limited++
	}
}

// count returns the numbers of calls, of 429s and of calls that were taken.
func (a *sharedAccount) count() (calls, limited, accepted int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.calls, a.limited, a.accepted
}

// sharedRelay is one of the relays, while it lives.
type sharedRelay struct {
	*harness.Process
	smtp string
}

// sharedRig is several relays on one database, and who hands mail to them.
type sharedRig struct {
	t       *testing.T
	account *sharedAccount
	url     string

	mu     sync.Mutex
	relays []*sharedRelay
	owed   []string // recipients of mail that was answered 250
	next   int
}

func (rig *sharedRig) start() {
	env := harness.Environ(rig.t, "SMTP2REST_STORE_URL="+rig.url, "NEXUSPROMAIL_API_KEY=sandbox-key", "SMTP2REST_DATA_DIR="+filepath.Join(rig.t.TempDir(), "data"))
	config := fmt.Sprintf(`[api]
url = "http://%s/api"
rate = %d
burst = %d
concurrency = %d
[sender]
email = "hello@mail.example.com"
[delivery]
wait = "0s"
retry_first = "200ms"
[[listener]]
address = "127.0.0.1:0"
`, rig.account.address, sharedRate, sharedRate/4, sharedWorkers*4/3)
	p := harness.Launch(rig.t, env, "serve", "--config", harness.ConfigFile(rig.t, config))
	r := &sharedRelay{p, p.Await(p.Err, `msg=listening address=(127\.0\.0\.1:\d+)`)}
	rig.mu.Lock()
	defer rig.mu.Unlock()
	rig.relays = append(rig.relays, r)
}

// kill ends a relay in the midst of what it does.
func (rig *sharedRig) kill() {
	rig.mu.Lock()
	i := rand.IntN(len(rig.relays))
	r := rig.relays[i]
	rig.relays = slices.Delete(rig.relays, i, i+1)
	rig.mu.Unlock()
	r.Signal(syscall.SIGKILL)
	<-r.Done
}

// hand hands a mail for so many recipients to one of the relays. It may fail, because the
// relay may be killed.
func (rig *sharedRig) hand(recipients int) error {
	rig.mu.Lock()
	address := rig.relays[rand.IntN(len(rig.relays))].smtp
	var to []string
	for range recipients {
		rig.next++
		to = append(to, fmt.Sprintf("r%d@example.net", rig.next))
	}
	rig.mu.Unlock()
	text := fmt.Sprintf("From: <hello@mail.example.com>\r\nMessage-ID: <%d@app.example>\r\nSubject: Hello\r\n\r\nHello.\r\n", time.Now().UnixNano())
	if err := smtp.SendMail(address, nil, fmt.Sprintf("app%d@mail.example.com", rand.IntN(7)), to, []byte(text)); err != nil {
		return err
	}
	rig.mu.Lock()
	defer rig.mu.Unlock()
	rig.owed = append(rig.owed, to...)
	return nil
}

func (rig *sharedRig) kept() int {
	rig.mu.Lock()
	defer rig.mu.Unlock()
	return len(rig.owed)
}

// flood hands in single mails for a time, as fast as they are taken, and says how many
// were accepted and delivered a second.
func (rig *sharedRig) flood(d time.Duration) (accepted, delivered float64) {
	before := rig.kept()
	_, _, took := rig.account.count()
	begun := time.Now()
	var clients sync.WaitGroup
	for range 8 {
		clients.Go(func() {
			for time.Since(begun) < d {
				if err := rig.hand(1); err != nil {
					rig.t.Error(err)
					return
				}
			}
		})
	}
	clients.Wait()
	_, _, now := rig.account.count()
	past := time.Since(begun).Seconds()
	return float64(rig.kept()-before) / past, float64(now-took) / past
}

// feed keeps the queue from running empty until stop is called.
func (rig *sharedRig) feed() (stop func()) {
	var end atomic.Bool
	var feeder sync.WaitGroup
	tick := time.NewTicker(100 * time.Millisecond)
	feeder.Go(func() {
		for range tick.C {
			if end.Load() {
				return
			}
			if _, _, accepted := rig.account.count(); rig.kept()-accepted < 20*sharedRate {
				_ = rig.hand(90) // again, if its relay was killed
			}
		}
	})
	return func() {
		end.Store(true)
		feeder.Wait()
		tick.Stop()
	}
}

// pause has one call answered 429, and returns how long others came after it.
func (rig *sharedRig) pause() time.Duration {
	a := rig.account
	a.mu.Lock()
	a.pause, a.paused = true, time.Time{}
	a.mu.Unlock()
	harness.PollUntil(rig.t, "a call is answered 429", func() bool {
		a.mu.Lock()
		defer a.mu.Unlock()
		return !a.paused.IsZero() && time.Since(a.paused) > sharedPause+time.Second
	})
	a.mu.Lock()
	defer a.mu.Unlock()
	var last time.Duration
	for _, at := range a.late {
		if after := at.Sub(a.paused); after < sharedPause {
			last = max(last, after)
		}
	}
	return last
}

// TestRelaysShareAnAccount: three relays on one PostgreSQL use one account's quota
// together while they are killed and others started: nearly all of it, with hardly a 429,
// and nothing is lost. A 429 that one has stops all.
func TestRelaysShareAnAccount(t *testing.T) {
	server := pgtest.Start(t)
	rig := &sharedRig{t: t, account: newSharedAccount(t), url: server.URL(server.Database())}
	span, flood, between := time.Minute, 2*time.Second, 20*time.Second
	if harness.All() {
		span, flood, between = 4*time.Minute, 5*time.Second, 30*time.Second
	}
	for n := range 3 {
		rig.start()
		accepted, delivered := rig.flood(flood)
		t.Logf("%d relays: %.0f mails/s accepted; %.0f/s delivered meanwhile, of %d that the account allows", n+1, accepted, delivered, sharedRate)
	}
	stop := rig.feed()
	<-time.After(3 * time.Second) // the third has its share
	calls, limited, took := rig.account.count()
	begun, kills := time.Now(), 0
	for next := between / 2; next < span; next += between {
		<-time.After(time.Until(begun.Add(next)))
		rig.kill()
		kills++
		rig.start()
	}
	<-time.After(time.Until(begun.Add(span)))
	calls2, limited2, took2 := rig.account.count()
	used := float64(took2-took) / (sharedRate * time.Since(begun).Seconds())
	refused := float64(limited2-limited) / float64(max(calls2-calls, 1))
	t.Logf("%d relays killed and started in %s: %.1f %% of the quota used, %.2f %% of the calls answered 429", kills, span, 100*used, 100*refused)
	if used < 0.95 || refused > 0.005 {
		t.Error("want 95 % and at most 0.5 %")
	}
	var pauses []time.Duration
	for range 3 {
		pauses = append(pauses, rig.pause())
	}
	t.Logf("after a 429 the last call of another relay came after %v", pauses)
	if slices.Sort(pauses); pauses[1] > time.Second {
		t.Error("want a second at most")
	}
	stop()
	rig.judge(kills)
}

// judge waits until all is sent that was answered 250, and counts what was sent twice.
func (rig *sharedRig) judge(kills int) {
	a, missing := rig.account, []string(nil)
	deadline := time.Now().Add(5 * time.Minute)
	for again := time.NewTicker(200 * time.Millisecond); time.Now().Before(deadline); <-again.C {
		missing = nil
		a.mu.Lock()
		for _, to := range rig.owed {
			if a.took[to] == 0 {
				missing = append(missing, to)
			}
		}
		a.mu.Unlock()
		if len(missing) == 0 {
			break
		}
	}
	if len(missing) > 0 {
		rig.t.Fatalf("lost: %d of %d recipients, such as %s", len(missing), len(rig.owed), missing[0])
	}
	twice := 0
	for _, n := range a.took {
		twice += n - 1
	}
	rig.t.Logf("%d recipients, none lost, %d sent twice", len(rig.owed), twice)
	if most := kills * sharedWorkers; twice > most {
		rig.t.Errorf("%d were sent twice, and at most %d were in flight when relays were killed", twice, most)
	}
}
