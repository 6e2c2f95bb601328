package app

import (
	"context"
	"os"
	"strings"
	"testing"

	"github.com/smtp2rest/smtp2rest/relay"
	"github.com/smtp2rest/smtp2rest/relay/admin"
	"github.com/smtp2rest/smtp2rest/relay/config"
	"github.com/smtp2rest/smtp2rest/relay/provider/nexuspromail/sandbox"
)

// hooked is a daemon with an endpoint, and the sandbox that tells it.
type hooked struct {
	t    *testing.T
	box  *sandbox.Server
	conf *config.Config
	app  *App
}

func newHooked(t *testing.T, more string) *hooked {
	t.Helper()
	h := &hooked{t: t, box: newSandbox(t)}
	h.conf = load(t, h.box.URL(), toml(t, more))
	h.conf.Webhook.Address, h.conf.Webhook.Secret = "127.0.0.1:0", config.NewSecret("whsec_test")
	h.boot()
	return h
}

func (h *hooked) boot() {
	h.t.Helper()
	h.app, _ = start(h.t, h.conf)
	h.tell(sandbox.Webhook{})
}

// tell has the sandbox tell the daemon, in a way.
func (h *hooked) tell(w sandbox.Webhook) {
	w.URL, w.Secret = "http://"+h.app.WebhookAddr().String()+h.conf.Webhook.Path, "whsec_test"
	h.box.SetWebhook(w)
}

// reboot ends the daemon and starts one on what is left.
func (h *hooked) reboot() {
	h.t.Helper()
	if err := stop(h.app, patience); err != nil {
		h.t.Fatal(err)
	}
	h.boot()
}

// mail hands a mail over, and returns the reply to RCPT, or to the mail.
func (h *hooked) mail(to string) string {
	h.t.Helper()
	c := dial(h.t, h.app.Addrs()[0].String())
	c.want("220 ")
	for _, step := range []string{"EHLO client.test", "MAIL FROM:<shop@sandbox.example>", "RCPT TO:<" + to + ">"} {
		c.send(step + "\r\n")
		if got := c.reply(); !strings.HasPrefix(got, "250 ") {
			return got
		}
	}
	c.send("DATA\r\n")
	c.want("354 ")
	c.send(firstHalf + secondHalf)
	return c.reply()
}

func (h *hooked) want(to, reply string) {
	h.t.Helper()
	if got := h.mail(to); !strings.HasPrefix(got, reply) {
		h.t.Errorf("%s: %q, want %q", to, got, reply)
	}
}

// heard waits until an event was taken.
func (h *hooked) heard(kind string, times int) {
	h.t.Helper()
	ctx, cancel := context.WithTimeout(h.t.Context(), patience)
	defer cancel()
	if err := h.box.WaitFor(ctx, func(s sandbox.Stats) bool { return s.Events[kind] >= times }); err != nil {
		h.t.Fatalf("%d of %s: %v", times, kind, err)
	}
}

func (h *hooked) operator() *admin.Client {
	h.t.Helper()
	c, err := admin.Dial(h.t.Context(), AdminSocket(h.conf))
	if err != nil {
		h.t.Fatal(err)
	}
	return c
}

// TestEventsTeachTheNextRCPT: what comes back by webhook decides over the next
// mail, and over those after a restart, until an operator decides otherwise.
func TestEventsTeachTheNextRCPT(t *testing.T) {
	for to, tt := range map[string]struct{ event, reply string }{
		"hardbounce@example.net":  {"bounced.hard", "550 5.1.1 <hardbounce@example.net> suppressed: hard bounce on "},
		"complaint@example.net":   {"complained", "550 5.7.1 <complaint@example.net> suppressed: complaint since "},
		"unsubscribe@example.net": {"unsubscribed", "250 2.0.0 accepted"},
		"softbounce@example.net":  {"bounced.soft", "250 2.0.0 accepted"},
		"bob@example.net":         {"delivered", "250 2.0.0 accepted"},
	} {
		t.Run(tt.event, func(t *testing.T) {
			h := newHooked(t, "")
			h.want(to, "250 2.0.0 accepted")
			h.heard(tt.event, 1)
			h.want(strings.ToUpper(to[:4])+to[4:], strings.ReplaceAll(tt.reply, to, strings.ToUpper(to[:4])+to[4:]))
			h.reboot()
			h.want(to, tt.reply)
			if !strings.HasPrefix(tt.reply, "550") {
				return
			}
			if n, err := h.operator().RemoveSuppressions(t.Context(), []string{to}); n != 1 || err != nil {
				t.Fatalf("%d, %v", n, err)
			}
			h.want(to, "250 2.0.0 accepted")
			h.heard(tt.event, 2)
			h.want(to, tt.reply) // it happened again, after the removal
		})
	}
}

// TestStatusTellsOfBounces: mail that the API took and that bounced later is told
// of nowhere else.
func TestStatusTellsOfBounces(t *testing.T) {
	h := newHooked(t, "")
	status := func() admin.Status {
		t.Helper()
		s, err := h.operator().Status(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	if s := status(); s.LastDay == nil || *s.LastDay != (admin.LastDay{}) {
		t.Errorf("at first: %+v", s.LastDay)
	}
	h.want("hardbounce@example.net", "250 ")
	h.want("complaint@example.net", "250 ")
	h.want("softbounce@example.net", "250 ")
	h.heard("bounced.hard", 1)
	h.heard("complained", 1)
	h.heard("bounced.soft", 1)
	h.reboot()
	var s admin.Status
	until(t, func() bool { // the bounce to the sender is a mail of its own, which may wait
		s = status()
		return s.Queue.Waiting == 0
	})
	if s.LastDay == nil || *s.LastDay != (admin.LastDay{Bounced: 1, Complained: 1}) || s.State != admin.StateFine ||
		s.Summary != "mail flows; nothing waits; in the last day 1 recipient bounced and 1 complained" {
		t.Errorf("%+v, %q", s.LastDay, s.Summary)
	}
	if len(s.Warnings) != 1 || s.Warnings[0].Level != admin.LevelInfo || !strings.Contains(s.Warnings[0].Do, "smtp2rest history --state bounced,complained") {
		t.Errorf("the warnings are %+v", s.Warnings)
	}
}

func TestUnsubscribedIsRefusedWhereItIsTurnedOn(t *testing.T) {
	h := newHooked(t, "[webhook]\nsuppress_unsubscribed = true")
	h.want("unsubscribe@example.net", "250 ")
	h.heard("unsubscribed", 1)
	h.want("unsubscribe@example.net", "550 5.7.1 <unsubscribe@example.net> suppressed: unsubscribed since ")
}

// TestEventsInAnyOrder: repeated, and the last one first.
func TestEventsInAnyOrder(t *testing.T) {
	h := newHooked(t, "[bounce]\nlate = false\n") // the bounces would be mails with events of their own
	h.tell(sandbox.Webhook{Repeats: 2, Reorder: true})
	h.want("complaint@example.net", "250 ")
	h.heard("sent", 3) // the first, and so the last
	h.want("complaint@example.net", "550 5.7.1 ")
	h.want("hardbounce@example.net", "250 ")
	h.heard("sent", 6)
	h.want("hardbounce@example.net", "550 5.1.1 ")
	_, body := fetch(t, h.conf, "/metrics")
	for series, want := range map[string]string{
		`smtp2rest_webhook_events_total{type="complained"}`:                    "1",
		`smtp2rest_webhook_events_total{type="sent"}`:                          "2",
		`smtp2rest_webhook_requests_total{result="repeated"}`:                  "10",
		`smtp2rest_suppression_entries{reason="hard_bounce",source="webhook"}`: "1",
		`smtp2rest_suppression_refusals_total{reason="hard_bounce"}`:           "1",
	} {
		if !strings.Contains(body, series+" "+want+"\n") {
			t.Errorf("%s is not %s", series, want)
		}
	}
}

// TestAllThatIsKnownOutlivesTheProcess: what the API said, and the operator's.
func TestAllThatIsKnownOutlivesTheProcess(t *testing.T) {
	h := newHooked(t, "")
	h.want("suppressed@example.net", "550 5.7.1 suppressed: ")
	if _, err := h.operator().AddSuppressions(t.Context(), []admin.Suppression{{Address: "eve@example.net"}}); err != nil {
		t.Fatal(err)
	}
	h.want("eve@example.net", "550 5.7.1 <eve@example.net> suppressed: by the operator since ")
	calls := h.box.Stats().Calls
	h.reboot()
	h.want("suppressed@example.net", "550 5.7.1 <suppressed@example.net> suppressed: on the provider's suppression list since ")
	h.want("eve@example.net", "550 5.7.1 <eve@example.net> ")
	if now := h.box.Stats().Calls; now != calls {
		t.Errorf("the API was asked %d times more", now-calls)
	}
}

// TestHardBounceIsStrongerThanTheAPI: an address that the API refuses as suppressed is found to
// bounce, and the client is told that there is no such mailbox.
func TestHardBounceIsStrongerThanTheAPI(t *testing.T) {
	h := newHooked(t, "")
	h.want("suppressed@example.net", "550 5.7.1 suppressed: ")
	h.want("suppressed@example.net", "550 5.7.1 <suppressed@example.net> suppressed: on the provider's suppression list since ")
	if got := postEvent(t, h.app, "whsec_test", relay.EventHardBounce, "suppressed@example.net"); got != 200 {
		t.Errorf("the event is answered %d", got)
	}
	h.want("suppressed@example.net", "550 5.1.1 <suppressed@example.net> suppressed: hard bounce on ")
}

// TestWithoutAQueueEventsCountUntilTheEnd: and the daemon warned of that.
func TestWithoutAQueueEventsCountUntilTheEnd(t *testing.T) {
	h := &hooked{t: t, box: newSandbox(t)}
	h.conf = load(t, h.box.URL(), "[[listener]]\naddress = \"127.0.0.1:0\"\n[queue]\nmode = \"none\"\n")
	dir, err := os.MkdirTemp("", "adm") // a test's own directory is too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	h.conf.Admin.RuntimeDir = dir
	h.conf.Webhook.Address, h.conf.Webhook.Secret = "127.0.0.1:0", config.NewSecret("whsec_test")
	h.boot()
	h.want("hardbounce@example.net", "250 ")
	h.heard("bounced.hard", 1)
	h.want("hardbounce@example.net", "550 5.1.1 ")
	if e, err := h.operator().GetSuppression(t.Context(), "hardbounce@example.net"); err != nil || e.Detail == "" {
		t.Errorf("%+v, %v", e, err)
	}
	h.reboot()
	h.want("hardbounce@example.net", "250 ")
}
