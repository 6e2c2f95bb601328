package sandbox

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/smtp2rest/smtp2rest/relay/provider/nexuspromail"
)

const (
	webhooksPath  = base + "/v1/api/webhooks"
	maxNotices    = 10_000 // waiting; further events are dropped
	noticeTries   = 5
	noticeTimeout = 10 * time.Second
)

// notice is one event to send.
type notice struct {
	hook  Webhook
	kind  string
	body  []byte
	due   time.Time
	tries int
}

// notifier sends notices, one after the other.
type notifier struct {
	report func(kind string, status int)
	client *http.Client

	mu      sync.Mutex
	hook    Webhook // without a URL: none
	waiting []notice
	number  int
	wake    chan struct{} // one slot
	running bool
	stopped bool
	ended   sync.WaitGroup
	life    context.Context
	end     context.CancelFunc
}

func newNotifier(hook Webhook, report func(kind string, status int)) *notifier {
	h := &notifier{report: report, hook: hook, wake: make(chan struct{}, 1),
		client: &http.Client{Timeout: noticeTimeout, Transport: &http.Transport{}}}
	h.life, h.end = context.WithCancel(context.Background())
	return h
}

// SetWebhook changes where events are sent from now on. An empty URL ends that.
func (s *Server) SetWebhook(w Webhook) {
	s.notifier.mu.Lock()
	defer s.notifier.mu.Unlock()
	s.notifier.hook = w
}

// Webhook returns where events are sent.
func (s *Server) Webhook() Webhook {
	s.notifier.mu.Lock()
	defer s.notifier.mu.Unlock()
	return s.notifier.hook
}

// stop drops what waits and returns when nothing is in progress.
func (h *notifier) stop() {
	h.mu.Lock()
	h.stopped = true
	h.mu.Unlock()
	h.end()
	h.ended.Wait()
	h.client.CloseIdleConnections()
}

// enqueue queues the events of a mail that was taken.
func (h *notifier) enqueue(c Call, last []string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.hook.URL == "" || h.stopped {
		return
	}
	now := time.Now().UTC()
	var notices []notice
	for _, kind := range append([]string{"sent"}, last...) {
		if len(h.hook.Events) > 0 && !slices.Contains(h.hook.Events, kind) {
			continue
		}
		h.number++
		n := notice{hook: h.hook, kind: kind, due: now.Add(h.hook.Delay), body: eventBody(c, kind, h.number, now)}
		for range 1 + max(h.hook.Repeats, 0) {
			notices = append(notices, n)
		}
	}
	if h.hook.Reorder {
		slices.Reverse(notices)
	}
	if len(h.waiting)+len(notices) > maxNotices {
		return
	}
	h.waiting = append(h.waiting, notices...)
	if !h.running {
		h.running = true
		h.ended.Go(h.run)
	}
	select {
	case h.wake <- struct{}{}:
	default:
	}
}

// eventBody returns an event as the provider's guides show it.
func eventBody(c Call, kind string, number int, now time.Time) []byte {
	data := map[string]string{"message_id": c.MessageID, "email": c.To, "timestamp": now.Format(time.RFC3339)}
	switch kind {
	case "bounced.hard":
		data["bounce_code"], data["bounce_reason"] = "550", "5.1.1 The email account that you tried to reach does not exist"
	case "bounced.soft":
		data["bounce_code"], data["bounce_reason"] = "452", "4.2.2 The mailbox is full"
	}
	body, err := json.Marshal(map[string]any{
		"id": fmt.Sprintf("evt_%s_%d", strings.TrimPrefix(c.MessageID, "msg_"), number), "type": kind, "created_at": now.Format(time.RFC3339), "data": data,
	})
	if err != nil { // strings alone
		return nil
	}
	return body
}

// run sends notices when they are due, until stop.
func (h *notifier) run() {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		n, wait, ok := h.next()
		switch {
		case ok:
			h.send(n)
			continue
		case wait > 0:
			timer.Reset(wait)
		}
		select {
		case <-h.wake:
		case <-timer.C:
		case <-h.life.Done():
			return
		}
	}
}

// next returns the first notice that is due, or how long it is until one is.
func (h *notifier) next() (notice, time.Duration, bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	var wait time.Duration
	for i, n := range h.waiting {
		until := time.Until(n.due)
		if until <= 0 && h.life.Err() == nil {
			h.waiting = slices.Delete(h.waiting, i, i+1)
			return n, 0, true
		}
		if wait == 0 || until < wait {
			wait = until
		}
	}
	return notice{}, wait, false
}

// send posts a notice, and queues it again if the answer is not 200.
func (h *notifier) send(n notice) {
	status := h.post(n)
	if h.life.Err() != nil {
		return
	}
	h.report(n.kind, status)
	if n.tries++; status == http.StatusOK || n.tries >= noticeTries {
		return
	}
	n.due = time.Now().Add(time.Second << (n.tries - 1))
	h.mu.Lock()
	defer h.mu.Unlock()
	h.waiting = append(h.waiting, n)
}

// post returns the status of the answer; 0 if there was none.
func (h *notifier) post(n notice) int {
	r, err := http.NewRequestWithContext(h.life, http.MethodPost, n.hook.URL, bytes.NewReader(n.body))
	if err != nil {
		return 0
	}
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set(nexuspromail.SignatureHeader, nexuspromail.Sign(n.hook.Secret, n.body))
	resp, err := h.client.Do(r)
	if err != nil {
		return 0
	}
	_ = resp.Body.Close()
	return resp.StatusCode
}

// register answers a call that registers a webhook.
func (s *Server) register(w http.ResponseWriter, r *http.Request) {
	body, tooLarge, err := readBody(r, 64<<10)
	var in struct {
		URL    string   `json:"url"`
		Events []string `json:"events"`
	}
	a := answer{}
	switch {
	case err != nil:
		reset(w)
		return
	case !s.setting.Load().authorized(r):
		a = answer{status: http.StatusUnauthorized, code: "unauthorized", message: "the API key is wrong or missing"}
	case r.Method != http.MethodPost:
		a = answer{status: http.StatusMethodNotAllowed, code: "method_not_allowed", message: "use POST", allow: http.MethodPost}
	case !isJSON(r.Header.Values("Content-Type")):
		a = answer{status: http.StatusUnsupportedMediaType, code: "unsupported_media_type", message: "Content-Type must be application/json"}
	case tooLarge || json.Unmarshal(body, &in) != nil:
		a = answer{status: http.StatusBadRequest, code: "bad_request", message: "the body is no JSON object with url and events"}
	case !isHTTP(in.URL):
		a = answer{status: http.StatusUnprocessableEntity, code: "validation", message: "url must be an http or https address"}
	case len(in.Events) == 0:
		a = answer{status: http.StatusUnprocessableEntity, code: "validation", message: "events is required"}
	}
	if a.status != 0 {
		a.write(w, "", false)
		return
	}
	hook := s.Webhook()
	hook.URL, hook.Events, hook.Secret = in.URL, in.Events, "whsec_"+rand.Text()
	s.SetWebhook(hook)
	writeJSON(w, http.StatusOK, map[string]any{"id": "wh_" + rand.Text()[:12], "url": hook.URL, "events": hook.Events, "secret": hook.Secret})
}

func isHTTP(s string) bool {
	u, err := url.Parse(s)
	return err == nil && (u.Scheme == "http" || u.Scheme == "https") && u.Host != ""
}
