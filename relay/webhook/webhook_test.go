package webhook

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"go.uber.org/goleak"

	"github.com/smtp2rest/smtp2rest/relay"
	"github.com/smtp2rest/smtp2rest/relay/provider/nexuspromail"
	"github.com/smtp2rest/smtp2rest/test/harness"
)

func TestMain(m *testing.M) {
	harness.Quick()
	goleak.VerifyTestMain(m)
}

const secret = "whsec_test"

const hardBounce = `{"id":"evt_1","type":"bounced.hard","created_at":"2026-05-13T10:24:31Z",` +
	`"data":{"message_id":"msg_1","email":"bob@example.net","timestamp":"2026-05-13T10:24:28Z","bounce_code":"550","bounce_reason":"5.1.1 no such user"}}`

// keeper is a Taker that remembers events, or fails.
type keeper struct {
	mu     sync.Mutex
	events map[string]relay.Event
	fails  error
}

func (k *keeper) Take(_ context.Context, e relay.Event) (bool, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.fails != nil {
		return false, k.fails
	}
	_, known := k.events[e.ID]
	if !known {
		k.events[e.ID] = e
	}
	return !known, nil
}

func (k *keeper) all() []relay.Event {
	k.mu.Lock()
	defer k.mu.Unlock()
	return slices.Collect(maps.Values(k.events))
}

func newHandler(secrets ...string) (*Handler, *keeper) {
	k := &keeper{events: map[string]relay.Event{}}
	return NewHandler(Options{Settings: Settings{Secrets: secrets, Path: "/webhook"}, Provider: nexuspromail.Events{}, Taker: k}), k
}

func request(method, path, signature, body string) *http.Request {
	r := httptest.NewRequest(method, path, strings.NewReader(body))
	if signature != "" {
		r.Header.Set(nexuspromail.SignatureHeader, signature)
	}
	return r
}

// ask returns status and body, and checks what must hold for every answer.
func ask(t *testing.T, h http.Handler, r *http.Request) (int, string) {
	t.Helper()
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	body := w.Body.String()
	if w.Code == http.StatusOK != (body == "") {
		t.Errorf("%d with %q", w.Code, body)
	}
	if w.Code != http.StatusOK && (w.Header().Get("Content-Type") != "application/json" || !json.Valid(w.Body.Bytes())) {
		t.Errorf("%d is no JSON: %q", w.Code, body)
	}
	return w.Code, body
}

func TestAnswers(t *testing.T) {
	large := `{"id":"` + strings.Repeat("x", 10<<20) + `"}`
	full := hardBounce[:len(hardBounce)-1] + `,"x":"` + strings.Repeat("x", MaxBody-len(hardBounce)-7) + `"}`
	for _, tt := range []struct {
		name   string
		r      *http.Request
		status int
		want   result
		events int
	}{
		{"an event", request("POST", "/webhook", nexuspromail.Sign(secret, []byte(hardBounce)), hardBounce), 200, taken, 1},
		{"by the secret before", request("POST", "/webhook", nexuspromail.Sign("whsec_old", []byte(hardBounce)), hardBounce), 200, taken, 1},
		{"with a query", request("POST", "/webhook?x=1", nexuspromail.Sign(secret, []byte(hardBounce)), hardBounce), 200, taken, 1},
		{"as large as can be", request("POST", "/webhook", nexuspromail.Sign(secret, []byte(full)), full), 200, taken, 1},
		{"no signature", request("POST", "/webhook", "", hardBounce), 401, badSignature, 0},
		{"a wrong signature", request("POST", "/webhook", strings.Repeat("0", 64), hardBounce), 401, badSignature, 0},
		{"another's signature", request("POST", "/webhook", nexuspromail.Sign("else", []byte(hardBounce)), hardBounce), 401, badSignature, 0},
		{"of the empty secret", request("POST", "/webhook", nexuspromail.Sign("", []byte(hardBounce)), hardBounce), 401, badSignature, 0},
		{"of another body", request("POST", "/webhook", nexuspromail.Sign(secret, []byte(hardBounce+" ")), hardBounce), 401, badSignature, 0},
		{"in capitals", request("POST", "/webhook", strings.ToUpper(nexuspromail.Sign(secret, []byte(hardBounce))), hardBounce), 401, badSignature, 0},
		{"cut", request("POST", "/webhook", nexuspromail.Sign(secret, []byte(hardBounce))[:63], hardBounce), 401, badSignature, 0},
		{"not hex", request("POST", "/webhook", "<script>", hardBounce), 401, badSignature, 0},
		{"broken JSON, not signed", request("POST", "/webhook", "", "{"), 401, badSignature, 0},
		{"broken JSON, signed", request("POST", "/webhook", nexuspromail.Sign(secret, []byte("{")), "{"), 200, unreadable, 0},
		{"no object, signed", request("POST", "/webhook", nexuspromail.Sign(secret, []byte("[1]")), "[1]"), 200, unreadable, 0},
		{"null, signed", request("POST", "/webhook", nexuspromail.Sign(secret, []byte("null")), "null"), 200, unreadable, 0},
		{"nothing, signed", request("POST", "/webhook", nexuspromail.Sign(secret, nil), ""), 200, unreadable, 0},
		{"10 MB, signed", request("POST", "/webhook", nexuspromail.Sign(secret, []byte(large)), large), 413, tooLarge, 0},
		{"10 MB without a length", unsized(request("POST", "/webhook", nexuspromail.Sign(secret, []byte(large)), large)), 413, tooLarge, 0},
		{"cut short", &http.Request{Method: "POST", URL: request("POST", "/webhook", "", "").URL, Body: io.NopCloser(breaking{}), ContentLength: 10}, 400, cutShort, 0},
		{"another method", request("GET", "/webhook", nexuspromail.Sign(secret, nil), ""), 405, notOurs, 0},
		{"another path", request("POST", "/", nexuspromail.Sign(secret, []byte(hardBounce)), hardBounce), 404, notOurs, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			h, k := newHandler(secret, "whsec_old", "")
			status, body := ask(t, h, tt.r)
			if status != tt.status || len(k.all()) != tt.events {
				t.Errorf("%d %s, %d events; want %d, %d", status, body, len(k.all()), tt.status, tt.events)
			}
			if status == 401 && body != `{"error": "Invalid signature"}` {
				t.Errorf("401 %s", body)
			}
			for _, r := range results() {
				if got := testutil.ToFloat64(h.metrics.requests[r]); got != map[bool]float64{r == tt.want: 1}[true] {
					t.Errorf("%s is counted %v times", r, got)
				}
			}
		})
	}
}

func unsized(r *http.Request) *http.Request {
	r.ContentLength = -1
	return r
}

// breaking is a body whose client hangs up.
type breaking struct{}

func (breaking) Read([]byte) (int, error) { return 0, io.ErrUnexpectedEOF }

func TestWithoutASecretNothingIsTaken(t *testing.T) {
	h, k := newHandler()
	for _, signature := range []string{"", nexuspromail.Sign("", []byte(hardBounce))} {
		if status, _ := ask(t, h, request("POST", "/webhook", signature, hardBounce)); status != 401 || len(k.all()) != 0 {
			t.Errorf("%d, %d events", status, len(k.all()))
		}
	}
}

func post(t *testing.T, h http.Handler, body string) int {
	t.Helper()
	status, _ := ask(t, h, request("POST", "/webhook", nexuspromail.Sign(secret, []byte(body)), body))
	return status
}

// TestAgain checks that an event that comes again is answered 200, changes nothing,
// and is not counted.
func TestAgain(t *testing.T) {
	h, k := newHandler(secret)
	for range 3 {
		if status := post(t, h, hardBounce); status != 200 {
			t.Error(status)
		}
	}
	if len(k.all()) != 1 || testutil.ToFloat64(h.metrics.events["bounced.hard"]) != 1 || testutil.ToFloat64(h.metrics.requests[repeated]) != 2 {
		t.Errorf("%d events", len(k.all()))
	}
}

// TestNotKept checks that the provider is asked to send the event again, and that no
// event is counted.
func TestNotKept(t *testing.T) {
	h, k := newHandler(secret)
	k.fails = errors.New("disk full in /var/lib/secret-path")
	status, body := ask(t, h, request("POST", "/webhook", nexuspromail.Sign(secret, []byte(hardBounce)), hardBounce))
	if status != 503 || strings.Contains(body, "disk") || testutil.ToFloat64(h.metrics.events["bounced.hard"]) != 0 {
		t.Errorf("%d %s", status, body)
	}
	k.fails = nil
	if status := post(t, h, hardBounce); status != 200 || len(k.all()) != 1 {
		t.Errorf("the second time: %d", status)
	}
}

func TestTypesAreCounted(t *testing.T) {
	h, _ := newHandler(secret)
	for i, kind := range append(relay.EventTypes(), "bounced.Hard", "no.such", "") {
		if status := post(t, h, fmt.Sprintf(`{"id":"evt_%d","type":%q}`, i, kind)); status != 200 {
			t.Errorf("%s: %d", kind, status)
		}
	}
	for kind, c := range h.metrics.events {
		want := 1.0
		if kind == otherType {
			want = 3
		}
		if got := testutil.ToFloat64(c); got != want {
			t.Errorf("%s is counted %v times", kind, got)
		}
	}
}

// TestSecretsChangeInUse checks that the new secret and the one before it count, and
// older ones do not.
func TestSecretsChangeInUse(t *testing.T) {
	h, _ := newHandler("first")
	for i, secrets := range [][]string{{"first"}, {"second", "first"}, {"third", "second"}} {
		h.use(Settings{Secrets: secrets, Path: "/webhook"})
		for _, s := range []string{"first", "second", "third"} {
			want := 401
			if slices.Contains(secrets, s) {
				want = 200
			}
			if status, _ := ask(t, h, request("POST", "/webhook", nexuspromail.Sign(s, []byte(hardBounce)), hardBounce)); status != want {
				t.Errorf("step %d, %s: %d, want %d", i, s, status, want)
			}
		}
	}
}
