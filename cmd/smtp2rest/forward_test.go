package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/smtp2rest/smtp2rest/relay/admin"
	"github.com/smtp2rest/smtp2rest/relay/forward"
	"github.com/smtp2rest/smtp2rest/test/harness"
)

// TestForward: the program posts what becomes of mail, and an operator sees and drops
// what an endpoint refuses.
func TestForward(t *testing.T) {
	var mu sync.Mutex
	var posted []forward.Event
	hook := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		var e forward.Event
		if err := json.Unmarshal(body, &e); err != nil || r.Header.Get("X-SMTP2REST-Signature") == "" {
			t.Errorf("posted %s, %v", body, err)
		}
		mu.Lock()
		defer mu.Unlock()
		if posted = append(posted, e); e.Recipient == "eve@example.net" {
			w.WriteHeader(http.StatusGone)
		}
	}))
	defer hook.Close()
	_, env, _ := harness.SandboxProcess(t)
	env = harness.Environ(t, append(env, "SMTP2REST_FORWARD_SECRET_CRM=whsec_of-crm")...)
	p := harness.Launch(t, env, "serve", "--config", harness.ConfigFile(t, fmt.Sprintf(
		"[[listener]]\naddress = \"127.0.0.1:0\"\n[[forward]]\nname = \"crm\"\nurl = %q\nevents = [\"relay.sent\"]\n", hook.URL+"/events")))
	at := p.Await(p.Err, `msg=listening address=(127\.0\.0\.1:\d+)`)
	for _, to := range []string{"bob@example.net", "eve@example.net"} {
		if r := harness.Execute(t, env, "", "send", "--to", to, "--server", at); r.Code != 0 {
			t.Fatalf("%+v", r)
		}
	}
	var dead []admin.Forward
	harness.PollUntil(t, "there is a dead letter", func() bool {
		r := harness.Execute(t, env, "", "forward", "list", "--dead", "--json")
		return json.Unmarshal([]byte(r.Out), &dead) == nil && len(dead) == 1
	})
	if d := dead[0]; d.Endpoint != "crm" || d.Type != forward.Sent || d.Why != "HTTP 410" || !strings.Contains(string(d.Event), "eve@example.net") {
		t.Errorf("%+v", d)
	}
	mu.Lock()
	i := slices.IndexFunc(posted, func(e forward.Event) bool { return e.Recipient == "bob@example.net" }) // mails have no order
	if i < 0 || posted[i].QueueID == "" || posted[i].MessageID == "" || posted[i].APIMessageID == "" {
		t.Errorf("posted %+v", posted)
	}
	mu.Unlock()
	wantOut(t, harness.Execute(t, env, "", "forward"), 0, "relay.sent", "")
	wantOut(t, harness.Execute(t, env, "", "forward", "drop"), 2, "", "say what to drop")
	wantOut(t, harness.Execute(t, env, "", "forward", "drop", "--dead", "--yes"), 0, "1 event dropped.", "")
	wantOut(t, harness.Execute(t, env, "", "forward"), 0, "No event waits.", "")
	if strings.Contains(p.Err.String(), "whsec_of-crm") {
		t.Error("the log has the secret")
	}
}
