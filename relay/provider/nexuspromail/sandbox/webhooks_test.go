package sandbox

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// hearing is a webhook endpoint that remembers what it received.
type hearing struct {
	*httptest.Server
	mu     sync.Mutex
	types  []string
	ids    []string
	bodies []string
	wrong  []string
	fails  int // so many are answered 500
}

func listenFor(t *testing.T, secret func() string) *hearing {
	h := &hearing{}
	h.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		h.mu.Lock()
		defer h.mu.Unlock()
		mac := hmac.New(sha256.New, []byte(secret()))
		mac.Write(body)
		if err != nil || r.Header.Get("X-NexusProMail-Signature") != hex.EncodeToString(mac.Sum(nil)) {
			h.wrong = append(h.wrong, string(body))
		}
		if h.fails > 0 {
			h.fails--
			w.WriteHeader(http.StatusInternalServerError)
			return
		}
		var e struct{ ID, Type string }
		if err := json.Unmarshal(body, &e); err != nil {
			h.wrong = append(h.wrong, err.Error())
		}
		h.types, h.ids, h.bodies = append(h.types, e.Type), append(h.ids, e.ID), append(h.bodies, string(body))
	}))
	t.Cleanup(h.Close)
	return h
}

func (h *hearing) heard() []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Clone(h.types)
}

// events waits until so many events were answered, in whatever way.
func events(t *testing.T, s *Server, n int) {
	t.Helper()
	if err := s.WaitFor(t.Context(), func(st Stats) bool {
		got := st.EventsRefused
		for _, k := range st.Events {
			got += k
		}
		return got >= n
	}); err != nil {
		t.Fatal(err)
	}
}

func TestEventsOfMagicRecipients(t *testing.T) {
	for to, want := range map[string]string{
		"bob": "sent delivered", "hardbounce": "sent bounced.hard", "softbounce+1": "sent bounced.soft",
		"complaint": "sent delivered complained", "unsubscribe": "sent delivered unsubscribed",
		"lost": "sent delivered", "slow+1ms": "sent delivered", "suppressed": "", "down": "",
	} {
		t.Run(to, func(t *testing.T) {
			h := listenFor(t, func() string { return "whsec" })
			s := start(t, Options{Webhook: Webhook{URL: h.URL, Secret: "whsec"}})
			_, _ = call(t, client(t), s.sendURL(), bodyTo(to+"@example.net"), nil) // lost has no answer
			events(t, s, len(strings.Fields(want)))
			if got := strings.Join(h.heard(), " "); got != want || len(h.wrong) > 0 {
				t.Errorf("%s, wrong: %q", got, h.wrong)
			}
		})
	}
}

// TestAnEventIsAsDocumented checks field by field.
func TestAnEventIsAsDocumented(t *testing.T) {
	h := listenFor(t, func() string { return "whsec" })
	s := start(t, Options{Webhook: Webhook{URL: h.URL, Secret: "whsec", Events: []string{"bounced.hard"}}})
	must(t, client(t), s.sendURL(), bodyTo("hardbounce@example.net"), nil)
	events(t, s, 1)
	var e struct {
		ID        string
		Type      string
		CreatedAt time.Time `json:"created_at"`
		Data      map[string]string
	}
	if err := json.Unmarshal([]byte(h.bodies[0]), &e); err != nil {
		t.Fatal(err)
	}
	if !strings.HasPrefix(e.ID, "evt_") || e.Type != "bounced.hard" || time.Since(e.CreatedAt) > time.Minute ||
		e.Data["message_id"] != s.Calls()[0].MessageID || e.Data["email"] != "hardbounce@example.net" || e.Data["bounce_code"] != "550" ||
		!strings.HasPrefix(e.Data["bounce_reason"], "5.1.1 ") || e.Data["timestamp"] == "" || len(h.types) != 1 {
		t.Errorf("%s", h.bodies)
	}
}

func TestEventsRepeatedAndReordered(t *testing.T) {
	h := listenFor(t, func() string { return "whsec" })
	s := start(t, Options{Webhook: Webhook{URL: h.URL, Secret: "whsec", Repeats: 1, Reorder: true, Delay: time.Millisecond}})
	must(t, client(t), s.sendURL(), bodyTo("complaint@example.net"), nil)
	events(t, s, 6)
	if got := strings.Join(h.heard(), " "); got != "complained complained delivered delivered sent sent" {
		t.Error(got)
	}
	if ids := slices.Compact(slices.Clone(h.ids)); len(ids) != 3 {
		t.Errorf("ids %v", h.ids)
	}
}

// TestEventsComeAgain checks that an event that is not answered 200 is sent again.
func TestEventsComeAgain(t *testing.T) {
	h := listenFor(t, func() string { return "whsec" })
	h.fails = 1
	s := start(t, Options{Webhook: Webhook{URL: h.URL, Secret: "whsec", Events: []string{"sent"}}})
	must(t, client(t), s.sendURL(), bodyTo("bob@example.net"), nil)
	events(t, s, 2)
	if got := h.heard(); len(got) != 1 || s.Stats().EventsRefused != 1 {
		t.Errorf("%v, %d refused", got, s.Stats().EventsRefused)
	}
}

func TestRegister(t *testing.T) {
	s := start(t, Options{})
	h := listenFor(t, func() string { return s.Webhook().Secret })
	url := s.URL() + "/v1/api/webhooks"
	c := client(t)
	for name, tt := range map[string]struct {
		body   string
		edit   func(*http.Request)
		status int
	}{
		"no key":    {`{}`, func(r *http.Request) { r.Header.Del("Authorization") }, 401},
		"get":       {`{}`, func(r *http.Request) { r.Method = "GET" }, 405},
		"no JSON":   {`{`, nil, 400},
		"a form":    {`{}`, func(r *http.Request) { r.Header.Set("Content-Type", "text/plain") }, 415},
		"no url":    {`{"events":["sent"]}`, nil, 422},
		"ftp":       {`{"url":"ftp://x","events":["sent"]}`, nil, 422},
		"no events": {`{"url":"https://x.example/hook"}`, nil, 422},
	} {
		if g := must(t, c, url, tt.body, tt.edit); g.status != tt.status || !json.Valid([]byte(g.body)) {
			t.Errorf("%s: %d %s", name, g.status, g.body)
		}
	}
	if s.Webhook().URL != "" {
		t.Error("registered by a request that was refused")
	}
	g := must(t, c, url, `{"url":"`+h.URL+`","events":["bounced.hard"]}`, nil)
	var out struct {
		ID, URL, Secret string
		Events          []string
	}
	if err := json.Unmarshal([]byte(g.body), &out); err != nil || g.status != 200 || out.URL != h.URL || !strings.HasPrefix(out.Secret, "whsec_") || out.ID == "" || len(out.Events) != 1 {
		t.Fatalf("%d %s", g.status, g.body)
	}
	must(t, c, s.sendURL(), bodyTo("hardbounce@example.net"), nil)
	events(t, s, 1)
	if got := h.heard(); len(got) != 1 || got[0] != "bounced.hard" || len(h.wrong) > 0 {
		t.Errorf("%v, wrong %v", got, h.wrong)
	}
}
