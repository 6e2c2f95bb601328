package deliver

import (
	"context"
	"log/slog"
	"net"
	"testing"
	"time"

	"github.com/smtp2rest/smtp2rest/relay"
	"github.com/smtp2rest/smtp2rest/relay/attempt"
	"github.com/smtp2rest/smtp2rest/relay/pace"
	"github.com/smtp2rest/smtp2rest/relay/provider"
	"github.com/smtp2rest/smtp2rest/relay/provider/nexuspromail"
	"github.com/smtp2rest/smtp2rest/relay/queue"
)

// another returns the options of a further account: with a key of its own, and a way to
// the API of its own.
func (r *rig) another(account, key string, dial func(context.Context, string, string) (net.Conn, error)) (Options, provider.AccountClient) {
	r.t.Helper()
	log := slog.New(slog.NewTextHandler(r.log, nil))
	client, err := nexuspromail.New(provider.Connection{
		URL: "http://sandbox.example/api", Path: "/v1/transactional/send", Key: key,
		Timeouts: provider.Timeouts{Timeout: apiTimeout, ConnectTimeout: apiTimeout}, Concurrency: 4, Dial: dial,
	})
	if err != nil {
		r.t.Fatal(err)
	}
	o := r.options(log)
	o.Account = account
	o.Pace = pace.New(pace.Options{Settings: pace.Settings{Concurrency: 4, MaxPause: time.Hour}, Log: log})
	o.Attempts = attempt.New(attempt.Options{API: client, Pace: o.Pace, Suppressions: r.suppressed, Log: log})
	o.Bounce.From = relay.Address{Email: account + "@sandbox.example"}
	return o, client
}

func (r *rig) keepFor(g *Group, account, from string, to ...string) string {
	r.t.Helper()
	m := message(from, "of "+account, to...)
	m.Account = account
	if err := g.Keep(r.t.Context(), relay.Remainder{Message: m, Outcomes: untried(len(to)), Domain: "sandbox.example"}); err != nil {
		r.t.Fatalf("Keep: %v", err)
	}
	return m.ID
}

// inGroup runs f with a Group of three accounts: the rig's own, one whose key is wrong,
// and one whose calls hang.
func inGroup(t *testing.T, f func(r *rig, g *Group)) {
	t.Helper()
	inBubbleStopped(t, plan{}, func(r *rig) {
		over := make(chan struct{})
		hangs := func(context.Context, string, string) (net.Conn, error) {
			<-over
			return nil, net.ErrClosed
		}
		wrong, one := r.another("wrong", "no-key", r.net.Dial)
		slow, two := r.another("slow", key, hangs)
		clients := []provider.AccountClient{one, two}
		g := NewGroup(r.options(slog.New(slog.NewTextHandler(r.log, nil))), wrong, slow)
		g.Start()
		f(r, g)
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		g.Stop(ctx)
		close(over)
		for _, c := range clients {
			c.Close()
		}
	})
}

func TestAnAccountThatIsClosedOrSlowHoldsUpNoOther(t *testing.T) {
	inGroup(t, func(r *rig, g *Group) {
		var stuck []string
		for range 50 {
			stuck = append(stuck, r.keepFor(g, "wrong", shop, "w@example.net"), r.keepFor(g, "slow", shop, "s@example.net"))
		}
		r.pass(time.Minute)
		for range 20 {
			begun := time.Now()
			id := r.keepFor(g, "", shop, "ann@example.net")
			for r.states(id) != "sent" && time.Since(begun) < time.Second {
				r.pass(10 * time.Millisecond)
			}
			if took := time.Since(begun); took > 50*time.Millisecond {
				t.Fatalf("mail of the healthy account took %v", took)
			}
		}
		for _, id := range stuck {
			if got := r.states(id); got == "sent" {
				t.Errorf("mail %s is %s", id, got)
			}
		}
		if got := len(r.calls("s@example.net")) + len(r.calls("w@example.net")); got > 10 {
			t.Errorf("%d calls reached the API for accounts that are closed", got)
		}
	})
}

// An account that waits for new mail, because the API forbids what it is sent, takes no
// other account's wake.
func TestAnAccountThatIsForbiddenHoldsUpNoOther(t *testing.T) {
	inBubbleStopped(t, plan{}, func(r *rig) {
		banned, client := r.another("banned", key, r.net.Dial)
		g := NewGroup(r.options(slog.New(slog.NewTextHandler(r.log, nil))), banned)
		g.Start()
		defer func() {
			g.Stop(context.Background())
			client.Close()
		}()
		for range 20 {
			r.keepFor(g, "banned", shop, "forbidden@example.net")
		}
		r.pass(time.Minute)
		for range 20 {
			begun := time.Now()
			id := r.keepFor(g, "", shop, "ann@example.net")
			for r.states(id) != "sent" && time.Since(begun) < time.Second {
				r.pass(10 * time.Millisecond)
			}
			if took := time.Since(begun); took > 50*time.Millisecond {
				t.Fatalf("mail of the healthy account took %v", took)
			}
		}
	})
}

func TestMailOfAnAccountThatIsGoneWaitsUntilItIsReassigned(t *testing.T) {
	inGroup(t, func(r *rig, g *Group) {
		id := r.keepFor(g, "gone", shop, "ann@example.net")
		r.pass(72 * time.Hour)
		r.wantStates(id, "waiting")
		if _, err := r.store.Reassign(context.Background(), queue.Filter{Account: "gone"}, ""); err != nil {
			t.Fatal(err)
		}
		r.pass(time.Second)
		r.wantStates(id, "sent")
	})
}

// A mail that is given to another account while it is tried is not tried by both; what is
// left of it is the other's.
func TestAMailThatIsReassignedWhileItIsTried(t *testing.T) {
	inGroup(t, func(r *rig, g *Group) {
		const sent = "slow+9s@example.net"
		one, stuck := r.keepFor(g, "", shop, sent), r.keepFor(g, "slow", shop, "ann@example.net")
		r.pass(time.Second)
		r.wantStates(one, "sending")
		r.wantStates(stuck, "sending")
		if _, err := r.store.Reassign(context.Background(), queue.Filter{ID: one}, "slow"); err != nil {
			t.Fatal(err)
		}
		if _, err := r.store.Reassign(context.Background(), queue.Filter{ID: stuck}, ""); err != nil {
			t.Fatal(err)
		}
		r.pass(5 * time.Second)
		r.wantStates(one, "sending")
		r.wantStates(stuck, "sending")
		r.pass(time.Hour)
		r.wantStates(one, "sent")
		r.wantStates(stuck, "sent")
		for _, to := range []string{sent, "ann@example.net"} {
			if n := len(r.calls(to)); n != 1 {
				t.Errorf("%d calls for %s", n, to)
			}
		}
	})
}

// A bounce is written once, and sent by the account of the mail that failed, as its sender.
func TestABounceIsOfTheAccountOfItsMail(t *testing.T) {
	inGroup(t, func(r *rig, g *Group) {
		id := r.keepFor(g, "slow", shop, "ann@example.net")
		r.pass(60 * time.Hour) // more than the mail may wait
		r.wantStates(id, "failed")
		bounce := r.mail(queue.BounceID(id, []int{0}))
		if got := bounce.Message.Account; got != "slow" {
			t.Errorf("the bounce is of account %q", got)
		}
		if n := r.log.count("the sender is told", id); n != 1 {
			t.Errorf("the sender was told %d times", n)
		}
	})
}

// A bounce keeps the account of its mail also when there is no such account: no other
// account may send it, and it waits with what else is of the account.
func TestABounceOfAnAccountThatIsGoneWaits(t *testing.T) {
	inGroup(t, func(r *rig, g *Group) {
		m := message(shop, "of gone", "ann@example.net")
		m.Account = "gone"
		refused := []relay.Outcome{{Kind: relay.Suppressed}}
		if err := g.Keep(r.t.Context(), relay.Remainder{Message: m, Outcomes: refused, Domain: "sandbox.example"}); err != nil {
			t.Fatal(err)
		}
		r.pass(time.Hour)
		r.wantStates(m.ID, "failed")
		bounce := queue.BounceID(m.ID, []int{0})
		if got := r.mail(bounce).Message.Account; got != "gone" {
			t.Errorf("the bounce is of account %q", got)
		}
		r.wantStates(bounce, "waiting")
	})
}
