package app

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/smtp2rest/smtp2rest/relay/admin"
	"github.com/smtp2rest/smtp2rest/relay/config"
	"github.com/smtp2rest/smtp2rest/relay/provider/nexuspromail/sandbox"
)

const resent = "Message-ID: <4711@app>\r\nFrom: shop@sandbox.example\r\nSubject: Order\r\n\r\nIt is on its way.\r\n.\r\n"

// handOverTo hands a mail over for several recipients, some of whom may be
// refused, and returns the reply to it.
func handOverTo(t *testing.T, a *App, from string, recipients ...string) string {
	t.Helper()
	c := dial(t, a.Addrs()[0].String())
	defer c.conn.Close()
	c.want("220 ")
	for _, line := range []string{"EHLO client.test", "MAIL FROM:<" + from + ">"} {
		c.send(line + "\r\n")
		c.want("250 ")
	}
	for _, to := range recipients {
		c.send("RCPT TO:<" + to + ">\r\n")
		c.reply()
	}
	c.send("DATA\r\n")
	c.want("354 ")
	c.send(resent)
	reply := c.reply()
	c.send("QUIT\r\n") // the client has its reply
	c.want("221 ")
	return reply
}

// short is a queue that has no room for mail.
type short struct {
	name, settings string
	blocked        bool   // by a mail that waits
	reply          string // to what cannot be kept
}

const retries = "\n[delivery]\nretry_first = \"1s\"\nretry_max = \"1s\""

func shorts() []short {
	return []short{
		{"no queue", "mode = \"none\"", false, "451 4.4.2 "},
		{"a full queue", "max_mails = 1" + retries, true, "452 4.3.1 "},
		{"a full disk", "min_free = \"1048576GiB\"" + retries, false, "452 4.3.1 "},
	}
}

// start runs a daemon whose queue has no room.
func (s short) start(t *testing.T, box *sandbox.Server) (*App, *config.Config) {
	t.Helper()
	c := load(t, box.URL(), inDir(t.TempDir(), s.settings))
	a, _ := start(t, c)
	if s.blocked {
		if got := handOver(t, a, "unavailable@example.net"); !strings.HasPrefix(got, "250 2.0.0 queued ") {
			t.Fatalf("the mail that fills the queue: %q", got)
		}
	}
	return a, c
}

func wantAccepted(t *testing.T, box *sandbox.Server, want map[string]int) {
	t.Helper()
	for to, n := range want {
		if got := box.AcceptedFor(to); got != n {
			t.Errorf("%s got %d mails, want %d", to, got, n)
		}
	}
	if s := box.Stats(); s.Duplicates != 0 {
		t.Errorf("%d keys were accepted twice", s.Duplicates)
	}
}

// 250 for a mail that some refuse is a bounce that is kept or sent, even though
// the queue has no room and the API does not take the bounce at first.
func TestNo250WithoutTheBounce(t *testing.T) {
	for _, s := range shorts() {
		t.Run(s.name, func(t *testing.T) {
			box := newSandbox(t)
			a, _ := s.start(t, box)
			const sender = "down+1@sandbox.example"
			got := handOverTo(t, a, sender, "bob@example.net", "suppressed@example.net", "invalid@example.net")
			if s.name == "no queue" {
				if !strings.HasPrefix(got, s.reply) {
					t.Errorf("while the bounce cannot be sent: %q", got)
				}
				got = handOverTo(t, a, sender, "bob@example.net", "suppressed@example.net", "invalid@example.net")
			}
			if !strings.HasPrefix(got, "250 2.0.0 accepted ") || !strings.Contains(got, "except <") {
				t.Errorf("the reply is %q", got)
			}
			awaitAccepted(t, box, 2)
			wantAccepted(t, box, map[string]int{"bob@example.net": 1, sender: 1})
		})
	}
}

// A client that is told to come again after some have the mail sends to the
// others alone, after a restart as well where there is a disk.
func TestAResendIsForTheOthers(t *testing.T) {
	for _, s := range shorts() {
		for _, restart := range []bool{false, true} {
			if restart && s.name == "no queue" {
				continue // there is nothing to keep it in
			}
			t.Run(fmt.Sprintf("%s, restart=%v", s.name, restart), func(t *testing.T) {
				box := newSandbox(t)
				a, c := s.start(t, box)
				hand := func() string {
					return handOverTo(t, a, "shop@sandbox.example", "bob@example.net", "down+2@example.net", "suppressed@example.net")
				}
				for range 2 {
					if got := hand(); !strings.HasPrefix(got, s.reply) {
						t.Errorf("while it cannot be sent to all: %q", got)
					}
					if restart {
						if err := stop(a, patience); err != nil {
							t.Fatal(err)
						}
						a, _ = start(t, c)
					}
				}
				if got := hand(); !strings.HasPrefix(got, "250 2.0.0 accepted ") {
					t.Errorf("when it can: %q", got)
				}
				wantAccepted(t, box, map[string]int{"bob@example.net": 1, "down+2@example.net": 1})
				// The same id, and so the same keys: what may have been sent is not sent anew.
				keys := map[string]bool{}
				for _, call := range box.Calls() {
					if call.To == "down+2@example.net" {
						keys[call.IdempotencyKey] = true
					}
				}
				if len(keys) != 1 {
					t.Errorf("%d keys for one recipient: %v", len(keys), keys)
				}
				if got := hand(); !strings.HasPrefix(got, "250 2.0.0 accepted ") {
					t.Errorf("the same mail on purpose: %q", got)
				}
				wantAccepted(t, box, map[string]int{"bob@example.net": 2, "down+2@example.net": 2})
			})
		}
	}
}

// A mail for more recipients than can be sent to while a client waits ends: each
// time the client comes, more have it.
func TestManyRecipientsAreReachedInTheEnd(t *testing.T) {
	box := newSandbox(t)
	a, _ := start(t, load(t, box.URL(), "[[listener]]\naddress = \"127.0.0.1:0\"\n[queue]\nmode = \"none\"\n[api]\nrate = 20\n[delivery]\nwait = \"500ms\"\n"))
	var all []string
	for i := range 50 {
		all = append(all, fmt.Sprintf("r%d@example.net", i))
	}
	times := 0
	for begin := time.Now(); ; times++ {
		got := handOverTo(t, a, "shop@sandbox.example", all...)
		if strings.HasPrefix(got, "250 ") {
			break
		}
		if !strings.HasPrefix(got, "451 4.3.2 ") || time.Since(begin) > 4*patience {
			t.Fatalf("after %d times: %q, and %d have the mail", times, got, box.Stats().Accepted)
		}
	}
	if times == 0 {
		t.Error("all were reached at once: this test proves nothing")
	}
	for _, to := range all {
		if n := box.AcceptedFor(to); n != 1 {
			t.Errorf("%s got %d mails", to, n)
		}
	}
}

// An operator is told of failures of which nobody was told.
func TestStatusCountsWhoWasNotTold(t *testing.T) {
	for _, mode := range []string{"disk", "none"} {
		t.Run(mode, func(t *testing.T) {
			box := newSandbox(t)
			dir := t.TempDir()
			a, _ := start(t, load(t, box.URL(), inDir(dir, fmt.Sprintf("mode = %q\n[bounce]\npostmaster = \"none\"\n[admin]\nsocket = %q", mode, admin.SocketIn(dir)))))
			if got := warnings(t, dir); strings.Contains(got, "nobody was told") {
				t.Errorf("at the start: %s", got)
			}
			got := handOverTo(t, a, "root@localhost", "bob@example.net", "suppressed@example.net", "invalid@example.net")
			if !strings.HasPrefix(got, "250 2.0.0 accepted ") {
				t.Errorf("the reply is %q", got)
			}
			want := "nobody was told of 2 failed recipients"
			for begin := time.Now(); !strings.Contains(warnings(t, dir), want); { // the queue's worker tells a moment later
				if time.Since(begin) > patience {
					t.Fatalf("an operator is told\n%s", warnings(t, dir))
				}
			}
		})
	}
}
