package app

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/smtp2rest/smtp2rest/relay"
	"github.com/smtp2rest/smtp2rest/relay/internal/signedpost"
	"github.com/smtp2rest/smtp2rest/relay/notify"
	"github.com/smtp2rest/smtp2rest/relay/provider/nexuspromail/sandbox"
)

// notified is a world in which somebody is told, by mail and by a webhook.
type notified struct {
	*world
	mu    sync.Mutex
	posts []notify.Notification
	times []time.Time
	down  atomic.Bool // the hook answers 503
	calls int
}

const opsMail = "ops@ops.example"

func inNotifiedWorld(t *testing.T, settings string, further map[string]sandbox.Options, f func(n *notified)) {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "secret"), []byte("whsec_notify\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	writeKeys(t, dir, "shop")
	settings = fmt.Sprintf("%s\n[notify]\nmail = [%q]\nurl = \"http://hooks.example/ops\"\nallow_insecure = true\nsecret_file = %q\n", settings, opsMail, filepath.Join(dir, "secret"))
	inVirtualWorld(t, strings.ReplaceAll(settings, "K/", dir+"/"), further, func(w *world) {
		n := &notified{world: w}
		server := &http.Server{Handler: n}
		served := make(chan error, 1)
		go func() { served <- server.Serve(w.hooks) }()
		defer func() { _ = server.Close(); <-served }()
		f(n)
	})
}

func (n *notified) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	n.mu.Lock()
	defer n.mu.Unlock()
	n.calls++
	var one notify.Notification
	if err := json.Unmarshal(body, &one); err != nil || r.Header.Get(signedpost.SignatureHeader) != signedpost.Sign("whsec_notify", body) {
		n.t.Errorf("posted %s, signed %s, %v", body, r.Header.Get(signedpost.SignatureHeader), err)
	}
	if n.down.Load() {
		w.WriteHeader(http.StatusServiceUnavailable)
		return
	}
	n.posts, n.times = append(n.posts, one), append(n.times, time.Now())
}

// told is what was posted so far, in words: "begins key_refused".
func (n *notified) told() (list []string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	for _, p := range n.posts {
		var news []string
		for _, one := range p.News {
			news = append(news, strings.TrimSuffix(string(one.State)+" "+one.Name+" "+one.Account, " "))
		}
		list = append(list, strings.Join(news, ", "))
	}
	return list
}

func (n *notified) want(when string, want ...string) {
	n.t.Helper()
	if got := n.told(); !slices.Equal(got, want) {
		n.t.Fatalf("%s: told %q, want %q", when, got, want)
	}
}

// mailed are the subjects of the mails to ops that the API took.
func (n *notified) mailed(box *sandbox.Server) (subjects []string) {
	n.t.Helper()
	for _, c := range box.Calls() {
		var p struct{ Subject, Text string }
		if err := json.Unmarshal(c.Body, &p); err != nil {
			n.t.Fatal(err)
		}
		if c.To == opsMail && c.Status == 200 {
			subjects = append(subjects, p.Subject)
		}
	}
	return subjects
}

// TestToldOfAKeyThatIsRefused: at once, again after a day, and when it is over; and not
// again because the relay was restarted.
func TestToldOfAKeyThatIsRefused(t *testing.T) {
	inNotifiedWorld(t, "", nil, func(n *notified) {
		n.pass(10 * time.Minute)
		n.want("all is well")
		n.must(n.box.SetKey("another"))
		if got := n.hand("shop@sandbox.example", "the words of a mail", "bob@example.net"); !strings.HasPrefix(got, "250 2.0.0 queued") {
			t.Fatal(got)
		}
		n.pass(2 * time.Minute)
		n.want("two minutes later", "begins key_refused")
		p := n.posts[0]
		if p.Host == "" || p.Type != notify.TypeNotification || p.News[0].Since.IsZero() || !strings.Contains(p.Text, "the API refuses the key") || strings.Contains(p.Text, "words of a mail") {
			t.Errorf("posted %+v", p)
		}
		n.stop(time.Minute)
		n.boot()
		n.pass(3 * time.Hour)
		n.want("three hours and a restart later", "begins key_refused")
		n.pass(21 * time.Hour)
		n.want("a day later", "begins key_refused", "begins queue_old", "lasts key_refused")
		n.must(n.box.SetKey("planted-key"))
		n.pass(10 * time.Minute)
		n.want("mended", "begins key_refused", "begins queue_old", "lasts key_refused", "over key_refused, over queue_old")
		// By mail nothing could be told while it lasted: what waited for more than
		// queue_age was dropped, and what is left is how it is now.
		for _, subject := range n.mailed(n.box) {
			if !strings.Contains(subject, "still: the API refuses the key") && !strings.Contains(subject, "over: ") {
				t.Errorf("mailed %q", subject)
			}
		}
		if got := n.mailed(n.box); len(got) == 0 || !strings.Contains(got[len(got)-1], "over: ") {
			t.Errorf("mailed %q", got)
		}
	})
}

// TestToldOfABreaker: only when it has been open for long, and once while it comes and
// goes.
func TestToldOfABreaker(t *testing.T) {
	inNotifiedWorld(t, "", nil, func(n *notified) {
		down := func(d time.Duration) {
			n.must(n.box.SetOutage(sandbox.OutageError))
			for range 8 {
				n.hand("shop@sandbox.example", "s", "bob@example.net")
			}
			n.pass(d)
			n.must(n.box.SetOutage(sandbox.OutageNone))
			n.pass(3 * time.Minute)
		}
		down(4 * time.Minute)
		n.want("after a short one")
		down(7 * time.Minute)
		n.want("after a long one", "begins api_down")
		n.pass(3 * time.Minute)
		n.want("when it is over", "begins api_down", "over api_down")
		for range 5 {
			down(7 * time.Minute)
		}
		n.want("in the same hour", "begins api_down", "over api_down")
		down(10 * time.Minute)
		if got := n.told(); len(got) != 3 || got[2] != "begins api_down" || n.times[2].Sub(n.times[0]) < time.Hour {
			t.Errorf("an hour later: %q at %v", got, n.times)
		}
	})
}

// TestToldThroughAnotherAccount: the mail is not sent by the account that is the cause.
func TestToldThroughAnotherAccount(t *testing.T) {
	settings := "[[account]]\nname = \"shop\"\nkey_file = \"K/shop\"\nemail = \"hello@shop.example\"\n"
	inNotifiedWorld(t, settings, map[string]sandbox.Options{"shop": {Key: "key-of-shop"}}, func(n *notified) {
		n.must(n.box.SetKey("another"))
		n.hand("shop@sandbox.example", "s", "bob@example.net")
		n.pass(3 * time.Minute)
		n.want("the default account's key is refused", "begins key_refused default")
		if got := n.mailed(n.box.Account("shop")); len(got) != 1 || !strings.Contains(got[0], "account default: the API refuses the key") {
			t.Errorf("mailed by the other account: %q", got)
		}
		if got := n.mailed(n.box); len(got) != 0 {
			t.Errorf("mailed by the account that is the cause: %q", got)
		}
	})
}

// TestToldOfFailedMail: once in an hour while there is more of it. Mail of our own that
// fails is not told of.
func TestToldOfFailedMail(t *testing.T) {
	inNotifiedWorld(t, "[delivery]\nwait = \"0s\"\n", nil, func(n *notified) {
		fail := func(to string) {
			n.hand("shop@sandbox.example", "s", to)
			n.pass(2 * time.Minute)
		}
		fail("invalid@example.net")
		n.want("the first", "begins failed")
		fail("invalid@example.org")
		n.want("the second", "begins failed")
		n.pass(time.Hour)
		n.want("an hour later", "begins failed", "begins failed")
		if p := n.posts[1].News[0]; p.Count != 2 || p.What != "2 recipients failed" {
			t.Errorf("posted %+v", p)
		}
		n.pass(26 * time.Hour)
		n.want("a day later", "begins failed", "begins failed")

		list := n.now.accounts[0].suppressions
		_, err := list.Take(context.Background(), relay.Event{ID: "e", Type: relay.EventHardBounce, Email: opsMail, Received: time.Now(), Created: time.Now()})
		n.must(err)
		fail("invalid@example.com") // which is told to ops, who cannot be reached
		n.pass(5 * time.Hour)
		n.want("with an address that is suppressed", "begins failed", "begins failed", "begins failed")
		if stats, err := n.now.kept.queue.Stats(context.Background()); err != nil || stats.FailedMails != 3 {
			t.Errorf("%+v, %v", stats, err)
		}
		if log := n.log.String(); !strings.Contains(log, "a notification failed and is dropped") {
			t.Error("nothing says that a notification failed")
		}
	})
}

// TestToldTogether: bounces, complaints and a hook that was down.
func TestToldTogether(t *testing.T) {
	inNotifiedWorld(t, "", nil, func(n *notified) {
		n.down.Store(true)
		for i := range 50 {
			for kind, many := range map[string]int{relay.EventHardBounce: 50, relay.EventComplaint: 5} {
				if i >= many {
					continue
				}
				_, err := n.now.kept.records.TakeEvent(context.Background(), relay.Event{ID: fmt.Sprint(kind, i), Type: kind, Received: time.Now()}, "bob@example.net", nil)
				n.must(err)
			}
		}
		n.pass(5 * time.Hour)
		n.want("while the hook is down")
		n.mu.Lock()
		calls := n.calls
		n.mu.Unlock()
		if calls < 5 || calls > 15 {
			t.Errorf("it was tried %d times in five hours", calls)
		}
		if w := notifyWarnings(nil); len(w) != 0 {
			t.Error(w)
		}
		if got := n.mailed(n.box); len(got) != 1 || !strings.Contains(got[0], "(and 1 more)") {
			t.Errorf("mailed %q", got)
		}
		n.down.Store(false)
		n.pass(time.Hour)
		n.want("when it is back", "begins bounces, begins complaints")
		n.pass(20 * time.Hour)
		n.want("a day later", "begins bounces, begins complaints", "over bounces, over complaints")
	})
}

// TestOneAnAccountIsNotTheCauseOf: the first account that is not, else the default one.
func TestOneAnAccountIsNotTheCauseOf(t *testing.T) {
	of := func(accounts ...string) (n notify.Notification) {
		for _, a := range accounts {
			n.News = append(n.News, notify.News{State: notify.Begins, Cause: notify.Cause{Account: a}})
		}
		return n
	}
	for _, tt := range []struct {
		n    notify.Notification
		want string
	}{
		{of(), ""}, {of(""), ""}, {of("shop"), ""}, {of("default"), "shop"}, {of("default", "shop"), "lab"}, {of("default", "shop", "lab"), ""},
	} {
		if got := accountFor([]string{"", "shop", "lab"}, tt.n); got != tt.want {
			t.Errorf("%+v is sent by %q, want %q", tt.n.News, got, tt.want)
		}
	}
}
