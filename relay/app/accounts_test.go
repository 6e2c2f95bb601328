package app

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/smtp2rest/smtp2rest/relay/admin"
	"github.com/smtp2rest/smtp2rest/relay/config"
	"github.com/smtp2rest/smtp2rest/relay/provider/nexuspromail/sandbox"
	"github.com/smtp2rest/smtp2rest/relay/queue"
	"github.com/smtp2rest/smtp2rest/smtpd"
)

// threeAccounts are a default account that is well, one whose key is wrong and one
// that is over its quota.
const threeAccounts = `
[[account]]
name = "wrong"
key_file = "K/wrong"
email = "hello@wrong.example"
[[account]]
name = "over"
key_file = "K/over"
email = "hello@over.example"
domains = ["over.example", "XN--BCHER-KVA.example"]
[[user]]
name = "ann"
password_hash = "$2a$10$ylyd17Csnl.gmv72aKMzqOIyLh9S.26Bv1KgmF2DJ5OY/iePVbdHq"
account = "over"
`

// inVirtualAccounts is inVirtualTime with accounts of which the sandbox has the
// default one and "over".
func inVirtualAccounts(t *testing.T, settings string, f func(w *world)) {
	t.Helper()
	keys := t.TempDir()
	writeKeys(t, keys, "wrong", "over")
	inVirtualWorld(t, strings.ReplaceAll(settings, "K/", keys+"/"), map[string]sandbox.Options{
		"over": {Key: "key-of-over", Rate: 0.001, Burst: 1},
	}, f)
}

func writeKeys(t *testing.T, dir string, names ...string) {
	t.Helper()
	for _, name := range names {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("key-of-"+name+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// handBy hands a mail over as a client that may have logged in.
func (w *world) handBy(client smtpd.Client, from, author, to string) string {
	w.t.Helper()
	client.Session, client.Helo = "s", "client.test"
	env := &smtpd.Envelope{From: from, Recipients: []string{to}, Client: client}
	raw := fmt.Appendf(nil, "From: <%s>\r\nSubject: s\r\n\r\nIt is on its way.\r\n", author)
	return w.now.intake.Message(w.now.ctx, env, raw).String()
}

// accountOfMail is the account of the mail in the queue to an address.
func (w *world) accountOfMail(to string) string {
	w.t.Helper()
	entries, _, err := w.now.kept.queue.List(context.Background(), queue.Filter{Recipient: to})
	w.must(err)
	if len(entries) != 1 {
		w.t.Fatalf("%d mails to %s in the queue", len(entries), to)
	}
	return entries[0].Mail.Message.Account
}

func TestWhichAccountSends(t *testing.T) {
	inVirtualAccounts(t, threeAccounts+"[delivery]\nwait = \"0s\"\n", func(w *world) {
		for i, tt := range []struct {
			client       smtpd.Client
			from, author string
			want         string
		}{
			{smtpd.Client{}, "x@sandbox.example", "x@sandbox.example", ""},
			{smtpd.Client{}, "x@over.example", "x@over.example", "over"},
			{smtpd.Client{}, "x@over.example", "X <x@WRONG.example>", "wrong"}, // From comes before the envelope
			{smtpd.Client{}, "x@over.example", "x@gmail.example", "over"},
			{smtpd.Client{}, "x@gmail.example", "x@gmail.example", ""},
			{smtpd.Client{}, "x@gmail.example", "x@Bücher.example", "over"}, // the domain's other form
			{smtpd.Client{}, "x@bücher.example", "x@gmail.example", "over"},
			{smtpd.Client{}, "x@gmail.example", "x@xn--bcher-kva.EXAMPLE", "over"},
			{smtpd.Client{Account: "wrong"}, "x@over.example", "x@over.example", "wrong"},
			{smtpd.Client{Account: "default"}, "x@over.example", "x@over.example", ""},
			{smtpd.Client{User: "ann", Account: "wrong"}, "x@sandbox.example", "x@sandbox.example", "over"},
			{smtpd.Client{User: "bob"}, "x@over.example", "x@over.example", "over"},
		} {
			to := fmt.Sprintf("to%d@example.net", i)
			if got := w.handBy(tt.client, tt.from, tt.author, to); !strings.HasPrefix(got, "250 ") {
				t.Fatalf("case %d: %s", i, got)
			}
			if got := w.accountOfMail(to); got != tt.want {
				t.Errorf("case %d: the mail is of account %q, want %q", i, got, tt.want)
			}
		}
	})
}

// latencies hands n mails of the default account over, one every 50 ms, and returns how
// long each took until the API had it.
func (w *world) latencies(n int) []time.Duration {
	var mu sync.Mutex
	var all []time.Duration
	var wg sync.WaitGroup
	for i := range n {
		to := fmt.Sprintf("well%d@example.net", i)
		wg.Go(func() {
			begun := time.Now()
			w.handTo(w.now, "x@sandbox.example", "s", to)
			for w.box.AcceptedFor(to) == 0 && time.Since(begun) < time.Minute {
				time.Sleep(10 * time.Millisecond)
			}
			mu.Lock()
			defer mu.Unlock()
			all = append(all, time.Since(begun))
		})
		time.Sleep(50 * time.Millisecond)
	}
	wg.Wait()
	slices.Sort(all)
	return all
}

// With the others' accounts over quota and with a wrong key, and a crowd of mail for
// them, the healthy one is as quick as alone: directly, and from the queue.
func TestTheHealthyAccountIsAsQuickAsAlone(t *testing.T) {
	const mails = 200
	for _, wait := range []string{"10s", "0s"} {
		measure := func(crowd int) (p50, p99, longest time.Duration) {
			inVirtualAccounts(t, threeAccounts+"[delivery]\nwait = \""+wait+"\"\n[limits]\nmemory = \"1GiB\"\n", func(w *world) {
				w.must(w.box.SetLatency(100 * time.Millisecond))
				var wg sync.WaitGroup
				for i := range crowd {
					for _, account := range []string{"over", "wrong"} {
						wg.Go(func() {
							w.handBy(smtpd.Client{}, "x@"+account+".example", "x@"+account+".example", fmt.Sprintf("%s%d@example.net", account, i))
						})
					}
				}
				all := w.latencies(mails)
				p50, p99, longest = all[mails/2], all[mails*99/100], all[mails-1]
				wg.Wait()
				if n := w.box.Account("over").Stats().Accepted; crowd > 0 && n > 3 {
					t.Errorf("%d mails got through the account that is over its quota", n)
				}
			})
			return p50, p99, longest
		}
		p50, p99, longest := measure(0)
		among50, among99, amongLongest := measure(300)
		t.Logf("wait %s: alone p50 %v, p99 %v, longest %v; among the others p50 %v, p99 %v, longest %v", wait, p50, p99, longest, among50, among99, amongLongest)
		for _, pair := range [][2]time.Duration{{p50, among50}, {p99, among99}} {
			if pair[1] > pair[0]*11/10 {
				t.Errorf("wait %s: %v among the others, %v alone", wait, pair[1], pair[0])
			}
		}
	}
}

// A mail keeps its account over a restart, and mail of an account that is gone waits,
// which status says, until somebody gives it to another.
func TestAnAccountThatIsGone(t *testing.T) {
	inVirtualAccounts(t, threeAccounts, func(w *world) {
		w.must(w.box.Account("over").SetOutage("ratelimited+0x600"))
		got := w.handBy(smtpd.Client{}, "x@over.example", "x@over.example", "ann@example.net")
		if !strings.HasPrefix(got, "250 2.0.0 queued") {
			t.Fatal(got)
		}
		w.stop(time.Minute)
		w.boot()
		w.pass(time.Minute)
		if got := w.accountOfMail("ann@example.net"); got != "over" {
			t.Fatalf("after a restart the mail is of account %q", got)
		}
		w.stop(time.Minute)
		whole := w.conf
		less := *whole
		less.Accounts = nil
		less.Users = slices.Clone(whole.Users)
		less.Users[0].Account = ""
		w.conf = &less
		w.boot()
		w.pass(72 * time.Hour)
		calls := w.box.Stats().Calls
		warned := ""
		for _, warning := range w.now.status(context.Background(), time.Now()) {
			warned += warning.What + ": " + warning.Why + "; " + warning.Do
		}
		if !strings.Contains(warned, "queue reassign --account over") || calls > 0 {
			t.Errorf("%d calls; status says %q", calls, warned)
		}
		if _, err := w.now.kept.queue.Reassign(context.Background(), queue.Filter{Account: "over"}, ""); err != nil {
			t.Fatal(err)
		}
		w.pass(time.Second)
		if w.box.AcceptedFor("ann@example.net") != 1 {
			t.Error("the mail was not sent after it was reassigned")
		}
	})
}

// What one account learns to be suppressed is not suppressed for another.
func TestSuppressionsAreAnAccountsOwn(t *testing.T) {
	inVirtualAccounts(t, threeAccounts, func(w *world) {
		w.must(w.box.Account("over").SetRate(0, 0))
		const to = "suppressed@example.net"
		if got := w.handBy(smtpd.Client{}, "x@over.example", "x@over.example", to); !strings.HasPrefix(got, "550 ") {
			t.Fatal(got)
		}
		rcpt := func(from string) error {
			return w.now.intake.Recipient(w.now.ctx, &smtpd.Envelope{From: from}, to)
		}
		if err := rcpt("x@over.example"); err == nil {
			t.Error("it is not refused at RCPT for the account that knows")
		}
		if err := rcpt("x@sandbox.example"); err != nil {
			t.Errorf("another account refuses it: %v", err)
		}
	})
}

func TestAddingAnAccountTakesARestart(t *testing.T) {
	keys := t.TempDir()
	writeKeys(t, keys, "wrong", "over")
	more := strings.ReplaceAll(threeAccounts, "K/", keys+"/")
	one := load(t, "https://api.example.com/api", "")
	three := load(t, "https://api.example.com/api", more)
	for name, pair := range map[string][2]*config.Config{"new": {one, three}, "gone": {three, one}} {
		_, err := pair[0].WithoutRestart(pair[1])
		if err == nil || !strings.Contains(err.Error(), "is "+name+", which takes a restart") {
			t.Errorf("%s: %v", name, err)
		}
	}
	faster := load(t, "https://api.example.com/api", strings.Replace(more, "name = \"over\"\n", "name = \"over\"\nrate = 7\n", 1))
	changes, err := three.WithoutRestart(faster)
	if err != nil || len(changes) == 0 || changes[0].Path != `account "over".rate` {
		t.Errorf("another rate: %v, %v", changes, err)
	}
}

// Events at an account's path, with its secret, teach that account alone.
func TestEventsOfAnAccount(t *testing.T) {
	keys := t.TempDir()
	writeKeys(t, keys, "shop", "hook", "default")
	conf := load(t, newSandbox(t).URL(), toml(t, strings.ReplaceAll(`[webhook]
address = "127.0.0.1:0"
secret_file = "K/default"
[[account]]
name = "shop"
email = "hello@shop.example"
key_file = "K/shop"
webhook_secret_file = "K/hook"
`, "K/", keys+"/")))
	a, _ := start(t, conf)
	post := func(path, secret string) int {
		t.Helper()
		return postEventTo(t, a, path, secret, "bounced.hard", "bob@example.net")
	}
	if got := post("/webhook/shop", "key-of-default"); got != http.StatusUnauthorized {
		t.Errorf("another account's secret: %d", got)
	}
	if got := post("/webhook/other", "key-of-hook"); got != http.StatusNotFound {
		t.Errorf("no such account: %d", got)
	}
	if got := post("/webhook/shop", "key-of-hook"); got != http.StatusOK {
		t.Fatalf("its own secret: %d", got)
	}
	operator, err := admin.Dial(t.Context(), AdminSocket(conf))
	if err != nil {
		t.Fatal(err)
	}
	if e, err := operator.InAccount("shop").GetSuppression(t.Context(), "bob@example.net"); err != nil || e.Source != "webhook" {
		t.Errorf("the account's list has %+v, %v", e, err)
	}
	if _, err := operator.GetSuppression(t.Context(), "bob@example.net"); !errors.Is(err, admin.ErrNotSuppressed) {
		t.Errorf("the default account's list: %v", err)
	}
	if _, err := operator.InAccount("none").GetSuppression(t.Context(), "bob@example.net"); !errors.Is(err, admin.ErrBadRequest) {
		t.Errorf("the list of an account that there is not: %v", err)
	}
	st, err := operator.Status(t.Context())
	if err != nil || len(st.Accounts) != 2 || st.Accounts[1].Name != "shop" {
		t.Errorf("status has the accounts %+v, %v", st.Accounts, err)
	}
}
