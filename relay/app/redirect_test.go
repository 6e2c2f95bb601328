package app

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/smtp2rest/smtp2rest/relay"
	"github.com/smtp2rest/smtp2rest/relay/config"
	"github.com/smtp2rest/smtp2rest/relay/provider/nexuspromail/sandbox"
	"github.com/smtp2rest/smtp2rest/smtpd"
)

const dev = "dev@example.org"

// subjectsTo are the subjects of the mails that the API took for an address, sorted.
func subjectsTo(box *sandbox.Server, to string) (subjects []string) {
	for _, c := range box.Calls() {
		if c.To == to && c.MessageID != "" {
			subjects = append(subjects, c.Subject)
		}
	}
	slices.Sort(subjects)
	return subjects
}

// othersThan are the addresses that a call was made for, but for one.
func othersThan(box *sandbox.Server, to string) (others []string) {
	for _, c := range box.Calls() {
		if c.To != to {
			others = append(others, c.To)
		}
	}
	return others
}

// The mail of a user, of an account or of a listener alone goes to its address; that of
// everybody else goes to its recipients.
func TestWhoseMailIsRedirected(t *testing.T) {
	settings := strings.Replace(threeAccounts, "email = \"hello@over.example\"\n", "email = \"hello@over.example\"\nredirect_all = \""+dev+"\"\n", 1) + `
[[user]]
name = "tester"
password_hash = "$2a$10$ylyd17Csnl.gmv72aKMzqOIyLh9S.26Bv1KgmF2DJ5OY/iePVbdHq"
redirect_all = "tester@example.org"
`
	inVirtualAccounts(t, settings, func(w *world) {
		w.must(w.box.Account("over").SetRate(0, 0))
		for _, tt := range []struct {
			client smtpd.Client
			from   string
			want   string // who gets it; "": the recipient
		}{
			{smtpd.Client{}, "x@sandbox.example", ""},
			{smtpd.Client{User: "bob"}, "x@sandbox.example", ""},
			{smtpd.Client{User: "tester"}, "x@sandbox.example", "tester@example.org"},
			{smtpd.Client{Redirect: "listener@example.org"}, "x@sandbox.example", "listener@example.org"},
			{smtpd.Client{User: "tester", Redirect: "listener@example.org"}, "x@sandbox.example", "listener@example.org"},
			{smtpd.Client{}, "x@over.example", dev},
			{smtpd.Client{User: "ann"}, "x@sandbox.example", dev}, // whose account is over
			{smtpd.Client{User: "tester"}, "x@over.example", "tester@example.org"},
		} {
			w.box.Reset()
			w.box.Account("over").Reset()
			const to = "suppressed@example.net" // which the account's list has soon
			if got := w.handBy(tt.client, tt.from, tt.from, to); tt.want != "" && !strings.HasPrefix(got, "250 ") {
				t.Errorf("%+v: %s", tt, got)
			}
			calls := append(w.box.Calls(), w.box.Account("over").Calls()...)
			if want := tt.want; len(calls) > 1 || len(calls) == 1 && calls[0].To != want && calls[0].To != to || want != "" && (len(calls) != 1 || calls[0].To != want) {
				t.Errorf("%+v: calls %+v", tt, calls)
			}
			env := &smtpd.Envelope{From: tt.from, Client: tt.client}
			if err := w.now.intake.Recipient(w.now.ctx, env, to); (err == nil) != (tt.want != "") {
				t.Errorf("%+v: RCPT says %v", tt, err)
			}
		}
	})
}

// Each recipient is one mail to the one address; over LMTP each has its own reply, and
// the people behind an alias are named.
func TestEachRecipientIsOneRedirectedMail(t *testing.T) {
	inVirtualTime(t, "[aliases]\nops = [\"ann@example.net\", \"bob@example.net\"]\n", func(w *world) {
		redirected := *w.conf
		redirected.RedirectAll = dev
		w.stop(time.Minute)
		w.conf = &redirected
		w.boot()
		env := &smtpd.Envelope{From: "x@sandbox.example", Recipients: []string{"eve@example.net", "ops", "zoe@example.net"}, Client: smtpd.Client{Session: "s"}}
		raw := []byte("From: <x@sandbox.example>\r\nSubject: s\r\n\r\nHi.\r\n")
		answers := w.now.intake.MessageEach(w.now.ctx, env, raw)
		if len(answers) != 3 {
			t.Fatalf("%d replies for three recipients", len(answers))
		}
		for _, r := range answers {
			if !strings.HasPrefix(r.String(), "250 ") {
				t.Errorf("%s", r)
			}
		}
		want := []string{"[for ann@example.net] s", "[for bob@example.net] s", "[for eve@example.net] s", "[for zoe@example.net] s"}
		if got := subjectsTo(w.box, dev); !slices.Equal(got, want) {
			t.Errorf("got %q, want %q", got, want)
		}
		if others := othersThan(w.box, dev); others != nil {
			t.Errorf("calls for %q", others)
		}
	})
}

// A reload that redirects binds the very next call: of mail that waits for its turn with
// its client, of what is queued, and of what comes again.
func TestARedirectionBindsTheNextCall(t *testing.T) {
	inVirtualTime(t, "[delivery]\nwait = \"10s\"\n[api]\nrate = 1\nburst = 1\n", func(w *world) {
		var clients sync.WaitGroup
		for i := range 30 {
			clients.Go(func() { w.hand("x@sandbox.example", fmt.Sprintf("s%d", i), fmt.Sprintf("to%d@example.net", i)) })
		}
		w.pass(4500 * time.Millisecond)
		sent := len(w.box.Calls())
		if sent < 3 || sent > 6 {
			t.Fatalf("%d calls in 4.5 s at one a second", sent)
		}
		redirected := *w.conf
		redirected.RedirectAll, redirected.Queue.DataDir = dev, w.dir
		if _, err := w.now.reload(context.Background(), &redirected); err != nil {
			t.Fatal(err)
		}
		clients.Wait()
		w.pass(2 * time.Minute)
		for _, c := range w.box.Calls()[sent:] {
			if c.To != dev {
				t.Errorf("a call for %s after the reload", c.To)
			}
		}
		if got := len(subjectsTo(w.box, dev)); got != 30-sent {
			t.Errorf("%s got %d mails, want %d", dev, got, 30-sent)
		}
	})
}

// A late bounce of a redirected mail goes where the mail went: neither the sender nor the
// recipient hears of it, and there is one.
func TestALateBounceOfARedirectedMail(t *testing.T) {
	h := newHooked(t, "")
	const bouncing = "hardbounce@example.net"
	h.conf.RedirectAll = bouncing
	h.reboot()
	h.want("bob@example.net", "250 2.0.0 accepted")
	ctx, cancel := context.WithTimeout(h.t.Context(), patience)
	defer cancel()
	if err := h.box.WaitFor(ctx, func(s sandbox.Stats) bool { return s.Accepted == 2 }); err != nil {
		t.Fatalf("%v; %+v", err, h.box.Calls())
	}
	h.heard(relay.EventHardBounce, 2)
	h.reboot() // which waits for what is under way
	var subjects []string
	for _, c := range h.box.Calls() {
		subjects = append(subjects, c.Subject)
		if c.To != bouncing {
			t.Errorf("a call for %s", c.To)
		}
	}
	if len(subjects) != 2 || !strings.HasPrefix(subjects[0], "[for bob@example.net] ") || subjects[1] != "[for shop@sandbox.example] Your mail could not be delivered" {
		t.Errorf("%q", subjects)
	}
	if _, err := h.operator().GetSuppression(t.Context(), "bob@example.net"); err == nil {
		t.Error("the bounce was learnt of the recipient")
	}
}

// What redirects is said at the start and in status, by name.
func TestRedirectionsAreSaid(t *testing.T) {
	c := load(t, "https://api.example.com/api", strings.ReplaceAll(threeAccounts, "key_file = \"K/", "redirect_all = \"dev@example.org\"\nkey_file = \""+keysFor(t)+"/"))
	want := []string{"the mail of account wrong goes to dev@example.org", "the mail of account over goes to dev@example.org"}
	if got := redirections(c); !slices.Equal(got, want) {
		t.Errorf("%q", got)
	}
	c.RedirectAll = dev
	if got := redirections(c); len(got) != 1 {
		t.Errorf("%q", got)
	}
	if got := redirectWarnings(&config.Config{}); got != nil {
		t.Errorf("%+v", got)
	}
}

func keysFor(t *testing.T) string {
	dir := t.TempDir()
	writeKeys(t, dir, "wrong", "over")
	return dir
}
