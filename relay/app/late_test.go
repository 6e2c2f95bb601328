package app

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/smtp2rest/smtp2rest/relay"
	"github.com/smtp2rest/smtp2rest/relay/history"
	"github.com/smtp2rest/smtp2rest/relay/provider/nexuspromail"
	"github.com/smtp2rest/smtp2rest/relay/provider/nexuspromail/sandbox"
)

// bounced waits until the sandbox has had n mails for the sender, and returns them.
func (h *hooked) bounced(n int) (calls []sandbox.Call) {
	h.t.Helper()
	ctx, cancel := context.WithTimeout(h.t.Context(), patience)
	defer cancel()
	err := h.box.WaitFor(ctx, func(sandbox.Stats) bool {
		calls = slices.DeleteFunc(h.box.Calls(), func(c sandbox.Call) bool { return c.To != "shop@sandbox.example" })
		return len(calls) >= n
	})
	if err != nil {
		h.t.Fatalf("the sender had %d mails, want %d: %v", len(calls), n, err)
	}
	if len(calls) != n {
		h.t.Fatalf("the sender had %d mails, want %d", len(calls), n)
	}
	return calls
}

// again has an event come once more, under another id, and returns the answer's status.
func (h *hooked) again(kind, messageID, email string) int {
	h.t.Helper()
	body := fmt.Appendf(nil, `{"id":"evt_%s","type":%q,"created_at":%q,"data":{"message_id":%q,"email":%q,"bounce_code":"550","bounce_reason":"5.1.1 no such user"}}`,
		relay.NewID(time.Now()), kind, time.Now().UTC().Format(time.RFC3339), messageID, email)
	r, err := http.NewRequestWithContext(h.t.Context(), http.MethodPost, "http://"+h.app.WebhookAddr().String()+h.conf.Webhook.Path, bytes.NewReader(body))
	if err != nil {
		h.t.Fatal(err)
	}
	r.Header.Set(nexuspromail.SignatureHeader, nexuspromail.Sign("whsec_test", body))
	client := &http.Client{Timeout: patience, Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Do(r)
	if err != nil {
		h.t.Fatal(err)
	}
	_ = resp.Body.Close()
	return resp.StatusCode
}

// record is what the history has of a recipient.
func (h *hooked) record(to string) history.Mail {
	h.t.Helper()
	traced, err := h.operator().Trace(h.t.Context(), history.Query{Name: to})
	if err != nil || traced.Mail == nil {
		h.t.Fatalf("%+v, %v", traced, err)
	}
	return *traced.Mail
}

// TestLateFailuresReachTheSender: a mail that the API took and that bounces later is
// told of once, however often and under whatever id the event comes, over restarts too.
func TestLateFailuresReachTheSender(t *testing.T) {
	h := newHooked(t, "")
	h.tell(sandbox.Webhook{Repeats: 2})
	h.want("hardbounce@example.net", "250 2.0.0 accepted")
	h.heard("bounced.hard", 3)
	call := h.bounced(1)[0]
	var body struct{ Subject, Text string }
	if err := json.Unmarshal(call.Body, &body); err != nil {
		t.Fatal(err)
	}
	m := h.record("hardbounce@example.net")
	for _, want := range []string{"<hardbounce@example.net>", "550 ", m.ID} {
		if !strings.Contains(body.Text, want) {
			t.Errorf("the bounce has no %q:\n%s", want, body.Text)
		}
	}
	if body.Subject != "Your mail could not be delivered" {
		t.Errorf("the subject is %q", body.Subject)
	}
	told := 0
	for _, s := range m.Recipients[0].Steps {
		if s.What == history.StepTold {
			told++
		}
	}
	if told != 1 || m.Recipients[0].State != history.Bounced {
		t.Errorf("told %d times: %+v", told, m.Recipients[0])
	}
	for range 2 {
		if got := h.again(relay.EventHardBounce, m.Recipients[0].APIID, "hardbounce@example.net"); got != 200 {
			t.Errorf("the event is answered %d", got)
		}
		h.reboot()
	}
	h.want("softbounce@example.net", "250 ")
	h.want("complaint@example.net", "250 ")
	h.heard("complained", 1)
	h.heard("bounced.soft", 1)
	h.reboot() // which waits for what is under way
	h.bounced(1)
}
