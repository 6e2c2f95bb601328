package app

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/smtp2rest/smtp2rest/relay"
	"github.com/smtp2rest/smtp2rest/relay/admin"
	"github.com/smtp2rest/smtp2rest/relay/forward"
	"github.com/smtp2rest/smtp2rest/relay/internal/signedpost"
	"github.com/smtp2rest/smtp2rest/relay/provider/nexuspromail/sandbox"
	"github.com/smtp2rest/smtp2rest/smtpd"
)

// told is a world in which two applications are told: crm of everything, with a header
// field, and ops of failures alone.
type toldWorld struct {
	*world
	mu     sync.Mutex
	events map[string][]forward.Event // by endpoint
	answer map[string]func(e forward.Event) int
	calls  map[string]int
}

func inToldWorld(t *testing.T, settings string, f func(w *toldWorld)) {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "secret"), []byte("whsec_forward\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	endpoint := func(name, more string) string {
		return fmt.Sprintf("[[forward]]\nname = %q\nurl = \"http://hooks.example/%[1]s\"\nallow_insecure = true\nsecret_file = %q\nmax_pending = 100\n%s\n", name, filepath.Join(dir, "secret"), more)
	}
	settings += "\n" + endpoint("crm", "headers = [\"X-Order-Id\"]") + endpoint("ops", `events = ["relay.failed", "provider.bounced.hard"]`)
	inVirtualTime(t, settings, func(w *world) {
		n := &toldWorld{world: w, events: map[string][]forward.Event{}, answer: map[string]func(forward.Event) int{}, calls: map[string]int{}}
		server := &http.Server{Handler: n}
		served := make(chan error, 1)
		go func() { served <- server.Serve(w.hooks) }()
		defer func() { _ = server.Close(); <-served }()
		f(n)
	})
}

func (w *toldWorld) ServeHTTP(rw http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	var e forward.Event
	name := strings.TrimPrefix(r.URL.Path, "/")
	if err := json.Unmarshal(body, &e); err != nil || r.Header.Get(signedpost.SignatureHeader) != signedpost.Sign("whsec_forward", body) {
		w.t.Errorf("posted %s, %v", body, err)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.calls[name]++
	if answer := w.answer[name]; answer != nil {
		if status := answer(e); status != 200 {
			rw.WriteHeader(status)
			return
		}
	}
	w.events[name] = append(w.events[name], e)
}

func (w *toldWorld) answers(name string, f func(e forward.Event) int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.answer[name] = f
}

// of are the types of the events of a mail that an endpoint had, in their order.
func (w *toldWorld) of(name, to string) (types []string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, e := range w.events[name] {
		if e.Recipient == to {
			types = append(types, e.Type)
		}
	}
	return types
}

func (w *toldWorld) want(name, to string, want ...string) {
	w.t.Helper()
	if got := w.of(name, to); !slices.Equal(got, want) {
		w.t.Fatalf("%s was told of %s: %q, want %q", name, to, got, want)
	}
}

// order hands over a mail with a header field that crm is told.
func (w *toldWorld) order(to string) string {
	env := &smtpd.Envelope{From: "shop@sandbox.example", Recipients: []string{to}, Client: smtpd.Client{Session: "s", Addr: netip.MustParseAddrPort("127.0.0.1:4711")}}
	raw := fmt.Appendf(nil, "From: <shop@sandbox.example>\r\nSubject: a private subject\r\nMessage-ID: <m-%s>\r\nX-Order-Id: 17\r\nX-Other: 18\r\n\r\nprivate words\r\n", to)
	return w.now.intake.Message(w.now.ctx, env, raw).String()
}

// provider has an event of the provider come in.
func (w *toldWorld) provider(kind, apiID, to string) { w.providerOf("", kind, apiID, to) }

// providerOf has it come in as one of an account.
func (w *toldWorld) providerOf(account, kind, apiID, to string) {
	w.t.Helper()
	now := time.Now()
	e := relay.Event{ID: "evt_" + kind + apiID, Type: kind, Email: to, MessageID: apiID, Created: now, Occurred: now, Received: now, BounceReason: "no such user"}
	_, err := taker{account, w.now.accounts[0].suppressions, nil, w.now.kept.forwarder}.Take(context.Background(), e)
	w.must(err)
}

func (w *toldWorld) apiID(to string) string {
	w.t.Helper()
	for _, c := range w.box.Calls() {
		if c.To == to && c.MessageID != "" {
			return c.MessageID
		}
	}
	w.t.Fatalf("nothing was sent to %s", to)
	return ""
}

// TestForwarded: what becomes of mail reaches the applications, joined with the mail.
func TestForwarded(t *testing.T) {
	inToldWorld(t, "", func(w *toldWorld) {
		reply := w.order("bob@example.net")
		w.provider(relay.EventDelivered, w.apiID("bob@example.net"), "Bob@example.net")
		w.provider(relay.EventDelivered, w.apiID("bob@example.net"), "Bob@example.net") // once more
		w.provider(relay.EventHardBounce, w.apiID("bob@example.net"), "bob@example.net")
		w.pass(2 * time.Second)
		w.want("crm", "bob@example.net", "relay.sent", "provider.delivered", "provider.bounced.hard")
		w.want("ops", "bob@example.net", "provider.bounced.hard")
		e := w.events["crm"][1]
		if !strings.Contains(reply, e.QueueID) || e.QueueID == "" || e.MessageID != "m-bob@example.net" || e.Headers["X-Order-Id"] != "17" || len(e.Headers) != 1 ||
			e.Sender != "shop@sandbox.example" || e.APIMessageID != w.apiID("bob@example.net") || e.Provider == nil || e.Provider.Reason != "no such user" {
			t.Errorf("crm was told %+v", e)
		}
		if e := w.events["ops"][0]; e.Headers != nil || e.MessageID != "m-bob@example.net" {
			t.Errorf("ops was told %+v", e)
		}
		w.order("invalid@example.net")
		w.pass(2 * time.Second)
		w.want("crm", "invalid@example.net", "relay.failed", "relay.refused")
		w.provider(relay.EventDelivered, "msg_of-somebody-else", "eve@example.net")
		w.pass(2 * time.Second)
		w.want("crm", "eve@example.net", "provider.delivered")
		for _, e := range w.events["crm"] {
			if b, _ := json.Marshal(e); strings.Contains(string(b), "private") {
				t.Errorf("the words of a mail are in %s", b)
			}
		}
	})
}

// TestForwardedOfAnotherAccount: an event of an account tells its account, also where there
// is no history of the mail, and is never joined with mail of another one.
func TestForwardedOfAnotherAccount(t *testing.T) {
	inToldWorld(t, "", func(w *toldWorld) {
		w.order("bob@example.net")
		w.pass(time.Minute)
		w.providerOf("shop", relay.EventOpened, "msg_older", "ann@example.net")
		w.providerOf("shop", relay.EventClicked, w.apiID("bob@example.net"), "bob@example.net")
		w.pass(time.Minute)
		w.mu.Lock()
		defer w.mu.Unlock()
		told := 0
		for _, e := range w.events["crm"] {
			if e.Provider == nil {
				continue
			}
			if told++; e.Account != "shop" || e.QueueID != "" || e.Headers != nil || e.Sender != "" {
				t.Errorf("%+v", e)
			}
		}
		if told != 2 {
			t.Errorf("%d events of the provider were posted", told)
		}
	})
}

// TestForwardedFromTheQueue: over a kill, in order, and to the endpoint that was down
// when it is back, while the other one had it at once.
func TestForwardedFromTheQueue(t *testing.T) {
	inToldWorld(t, "", func(w *toldWorld) {
		down := func(forward.Event) int { return 503 }
		w.answers("crm", down)
		w.must(w.box.SetOutage(sandbox.OutageError))
		if got := w.order("bob@example.net"); !strings.HasPrefix(got, "250 2.0.0 queued") {
			t.Fatal(got)
		}
		w.pass(time.Minute)
		w.must(w.box.SetOutage(sandbox.OutageNone))
		w.pass(20 * time.Minute)
		w.kill()
		w.boot()
		w.provider(relay.EventHardBounce, w.apiID("bob@example.net"), "bob@example.net")
		w.pass(time.Hour)
		w.want("ops", "bob@example.net", "provider.bounced.hard")
		w.want("crm", "bob@example.net")
		w.mu.Lock()
		calls := w.calls["crm"]
		w.mu.Unlock()
		if calls < 5 || calls > 60 {
			t.Errorf("%d calls of an endpoint that is down, in an hour and a half", calls)
		}
		warnings := w.now.status(context.Background(), time.Now())
		if !slices.ContainsFunc(warnings, func(x admin.Warning) bool {
			return x.Cause == admin.CauseForward && x.Count == 3 && strings.Contains(x.Why, "503")
		}) {
			t.Errorf("status says %+v", warnings)
		}
		w.answers("crm", nil)
		w.pass(20 * time.Minute)
		w.want("crm", "bob@example.net", "relay.queued", "relay.sent", "provider.bounced.hard")
		if warnings := w.now.status(context.Background(), time.Now()); len(warnings) > 0 {
			t.Errorf("status still says %+v", warnings)
		}
	})
}

// TestDeadLetters: what an endpoint refuses holds nothing up, and waits for an operator.
func TestDeadLetters(t *testing.T) {
	inToldWorld(t, "", func(w *toldWorld) {
		w.answers("crm", func(e forward.Event) int {
			if e.Recipient == "bob@example.net" && e.Type == forward.Sent {
				return 422
			}
			return 200
		})
		w.order("bob@example.net")
		w.order("eve@example.net")
		w.provider(relay.EventDelivered, w.apiID("bob@example.net"), "bob@example.net")
		w.pass(10 * time.Second)
		w.want("crm", "eve@example.net", "relay.sent")
		w.want("crm", "bob@example.net") // in order, so that it waits
		w.pass(10 * time.Minute)
		w.want("crm", "bob@example.net", "provider.delivered")
		forwards := admin.NewForwards(w.now.kept.forwards, w.now.kept.forwarder.Wake)
		page, err := forwards.ListForwards(context.Background(), admin.ForwardFilter{Dead: true})
		w.must(err)
		if len(page.Entries) != 1 || page.Entries[0].Why != "HTTP 422" || page.Entries[0].Tries != 6 || page.Entries[0].State != admin.ForwardDead {
			t.Fatalf("%+v", page)
		}
		w.answers("crm", nil)
		if n, err := forwards.RetryForwards(context.Background(), admin.ForwardFilter{Dead: true}); n != 1 || err != nil {
			t.Errorf("%d, %v", n, err)
		}
		w.pass(time.Second)
		w.want("crm", "bob@example.net", "provider.delivered", "relay.sent")
	})
}

// TestForwardsAreBounded: an endpoint that is down for long keeps max_pending events, and
// says that more were lost.
func TestForwardsAreBounded(t *testing.T) {
	inToldWorld(t, "", func(w *toldWorld) {
		w.answers("crm", func(forward.Event) int { return 500 })
		for i := range 130 {
			w.order(fmt.Sprintf("bob%d@example.net", i))
		}
		w.pass(time.Minute)
		counts, err := w.now.kept.forwards.CountForwards(context.Background())
		w.must(err)
		if counts["crm"].Pending != 100 {
			t.Errorf("%+v", counts)
		}
		if warnings := w.now.status(context.Background(), time.Now()); !slices.ContainsFunc(warnings, func(x admin.Warning) bool {
			return x.Cause == admin.CauseForwardLost && x.Count == 30
		}) {
			t.Errorf("status says %+v", warnings)
		}
	})
}

// TestOneEventBreaksTheEndpoint: events that an endpoint answers 500 hold up no others, and
// end as dead letters when it takes those.
func TestOneEventBreaksTheEndpoint(t *testing.T) {
	inToldWorld(t, "", func(w *toldWorld) {
		w.answers("crm", func(e forward.Event) int {
			if strings.HasPrefix(e.Recipient, "bad") {
				return 500
			}
			return 200
		})
		for i := range 6 {
			w.order(fmt.Sprintf("bad%d@example.net", i))
		}
		for i := range 6 {
			w.order(fmt.Sprintf("good%d@example.net", i))
		}
		w.pass(2 * time.Minute)
		for i := range 6 {
			w.want("crm", fmt.Sprintf("good%d@example.net", i), "relay.sent")
		}
	})
}

// TestAnOutageCostsNoTries: after an hour of 503, one refusal is the first one.
func TestAnOutageCostsNoTries(t *testing.T) {
	inToldWorld(t, "", func(w *toldWorld) {
		w.answers("crm", func(forward.Event) int { return 503 })
		w.order("bob@example.net")
		w.pass(3 * time.Hour)
		refused := false
		w.answers("crm", func(forward.Event) int {
			if !refused {
				refused = true
				return 422
			}
			return 200
		})
		w.pass(time.Hour)
		w.want("crm", "bob@example.net", "relay.sent")
		if !refused {
			t.Error("it was not refused")
		}
	})
}

// TestRetryDoesNotWait: an operator who mended an endpoint need not wait for the pause.
func TestRetryDoesNotWait(t *testing.T) {
	inToldWorld(t, "", func(w *toldWorld) {
		w.answers("crm", func(forward.Event) int { return 503 })
		w.order("bob@example.net")
		w.pass(3 * time.Hour)
		w.answers("crm", nil)
		forwards := admin.NewForwards(w.now.kept.forwards, w.now.kept.forwarder.Wake)
		if n, err := forwards.RetryForwards(context.Background(), admin.ForwardFilter{Endpoint: "crm"}); n != 1 || err != nil {
			t.Fatalf("%d, %v", n, err)
		}
		w.pass(time.Second)
		w.want("crm", "bob@example.net", "relay.sent")
	})
}
