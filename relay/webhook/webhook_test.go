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
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"go.uber.org/goleak"

	"github.com/smtp2rest/smtp2rest/relay"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const secret = "whsec_test"

const hardBounce = `{"id":"evt_1","type":"bounced.hard","created_at":"2026-05-13T10:24:31Z",` +
	`"data":{"message_id":"msg_1","email":"bob@example.net","timestamp":"2026-05-13T10:24:28Z","bounce_code":"550","bounce_reason":"5.1.1 no such user"}}`

// TestVectors: signatures that openssl and Python made (testdata/make-vectors.sh).
func TestVectors(t *testing.T) {
	data, err := os.ReadFile("testdata/vectors.json")
	if err != nil {
		t.Fatal(err)
	}
	var vectors []struct {
		Name, Secret, Signature string
		Body                    []byte
	}
	if err := json.Unmarshal(data, &vectors); err != nil || len(vectors) < 8 {
		t.Fatalf("%d vectors, %v", len(vectors), err)
	}
	for _, v := range vectors {
		if got := Sign(v.Secret, v.Body); got != v.Signature {
			t.Errorf("%s: %s, want %s", v.Name, got, v.Signature)
		}
		if !signed([]string{v.Secret}, v.Body, v.Signature) || signed([]string{v.Secret + "x"}, v.Body, v.Signature) || signed([]string{v.Secret}, append(v.Body, 'x'), v.Signature) {
			t.Errorf("%s: judged wrongly", v.Name)
		}
	}
}

// keeper is a Taker that remembers, or fails.
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
	return NewHandler(Options{Settings: Settings{Secrets: secrets}, Taker: k}), k
}

func request(method, path, signature, body string) *http.Request {
	r := httptest.NewRequest(method, path, strings.NewReader(body))
	if signature != "" {
		r.Header.Set(SignatureHeader, signature)
	}
	return r
}

// ask returns status and body, and checks what must hold of every answer.
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
		{"an event", request("POST", "/webhook", Sign(secret, []byte(hardBounce)), hardBounce), 200, taken, 1},
		{"by the secret before", request("POST", "/webhook", Sign("whsec_old", []byte(hardBounce)), hardBounce), 200, taken, 1},
		{"with a query", request("POST", "/webhook?x=1", Sign(secret, []byte(hardBounce)), hardBounce), 200, taken, 1},
		{"as large as can be", request("POST", "/webhook", Sign(secret, []byte(full)), full), 200, taken, 1},
		{"no signature", request("POST", "/webhook", "", hardBounce), 401, badSignature, 0},
		{"a wrong signature", request("POST", "/webhook", strings.Repeat("0", 64), hardBounce), 401, badSignature, 0},
		{"another's signature", request("POST", "/webhook", Sign("else", []byte(hardBounce)), hardBounce), 401, badSignature, 0},
		{"of the empty secret", request("POST", "/webhook", Sign("", []byte(hardBounce)), hardBounce), 401, badSignature, 0},
		{"of another body", request("POST", "/webhook", Sign(secret, []byte(hardBounce+" ")), hardBounce), 401, badSignature, 0},
		{"in capitals", request("POST", "/webhook", strings.ToUpper(Sign(secret, []byte(hardBounce))), hardBounce), 401, badSignature, 0},
		{"cut", request("POST", "/webhook", Sign(secret, []byte(hardBounce))[:63], hardBounce), 401, badSignature, 0},
		{"not hex", request("POST", "/webhook", "<script>", hardBounce), 401, badSignature, 0},
		{"broken JSON, not signed", request("POST", "/webhook", "", "{"), 401, badSignature, 0},
		{"broken JSON, signed", request("POST", "/webhook", Sign(secret, []byte("{")), "{"), 200, unreadable, 0},
		{"no object, signed", request("POST", "/webhook", Sign(secret, []byte("[1]")), "[1]"), 200, unreadable, 0},
		{"null, signed", request("POST", "/webhook", Sign(secret, []byte("null")), "null"), 200, unreadable, 0},
		{"nothing, signed", request("POST", "/webhook", Sign(secret, nil), ""), 200, unreadable, 0},
		{"10 MB, signed", request("POST", "/webhook", Sign(secret, []byte(large)), large), 413, tooLarge, 0},
		{"10 MB without a length", unsized(request("POST", "/webhook", Sign(secret, []byte(large)), large)), 413, tooLarge, 0},
		{"cut short", &http.Request{Method: "POST", URL: request("POST", "/webhook", "", "").URL, Body: io.NopCloser(breaking{}), ContentLength: 10}, 400, cutShort, 0},
		{"another method", request("GET", "/webhook", Sign(secret, nil), ""), 405, notOurs, 0},
		{"another path", request("POST", "/", Sign(secret, []byte(hardBounce)), hardBounce), 404, notOurs, 0},
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

// breaking is a body whose client goes away.
type breaking struct{}

func (breaking) Read([]byte) (int, error) { return 0, io.ErrUnexpectedEOF }

func TestWithoutASecretNothingIsTaken(t *testing.T) {
	h, k := newHandler()
	for _, signature := range []string{"", Sign("", []byte(hardBounce))} {
		if status, _ := ask(t, h, request("POST", "/webhook", signature, hardBounce)); status != 401 || len(k.all()) != 0 {
			t.Errorf("%d, %d events", status, len(k.all()))
		}
	}
}

func post(t *testing.T, h http.Handler, body string) int {
	t.Helper()
	status, _ := ask(t, h, request("POST", "/webhook", Sign(secret, []byte(body)), body))
	return status
}

// TestAgain: what came before is acknowledged, changes nothing, and is no
// second event.
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

// TestNotKept: the provider is asked to come again, and nothing is counted as
// an event.
func TestNotKept(t *testing.T) {
	h, k := newHandler(secret)
	k.fails = errors.New("disk full in /var/lib/secret-path")
	status, body := ask(t, h, request("POST", "/webhook", Sign(secret, []byte(hardBounce)), hardBounce))
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
	for i, kind := range append(known(), "bounced.Hard", "no.such", "") {
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

var received = time.Date(2026, 5, 13, 10, 25, 0, 0, time.UTC)

func TestParse(t *testing.T) {
	at := func(s string) time.Time {
		v, err := time.Parse(time.RFC3339, s)
		if err != nil {
			t.Fatal(err)
		}
		return v.UTC()
	}
	whole := relay.Event{ID: "evt_1", Type: "bounced.hard", Created: at("2026-05-13T10:24:31Z"), Occurred: at("2026-05-13T10:24:28Z"), Email: "bob@example.net",
		MessageID: "msg_1", BounceCode: "550", BounceReason: "5.1.1 no such user", Received: received}
	for name, tt := range map[string]struct {
		body string
		want func(*relay.Event)
	}{
		"as documented":     {hardBounce, func(*relay.Event) {}},
		"in another zone":   {strings.Replace(hardBounce, "10:24:28Z", "12:24:28+02:00", 1), func(*relay.Event) {}},
		"parts of seconds":  {strings.Replace(hardBounce, "10:24:28Z", "10:24:28.000Z", 1), func(*relay.Event) {}},
		"unknown fields":    {strings.Replace(hardBounce, `"data":{`, `"more":[{}],"data":{"more":null,`, 1), func(*relay.Event) {}},
		"a code's number":   {strings.Replace(hardBounce, `"550"`, `550`, 1), func(*relay.Event) {}},
		"a wrong time":      {strings.Replace(hardBounce, "2026-05-13T10:24:28Z", "yesterday", 1), func(e *relay.Event) { e.Occurred = time.Time{} }},
		"a time's number":   {strings.Replace(hardBounce, `"2026-05-13T10:24:28Z"`, "1778667868", 1), func(e *relay.Event) { e.Occurred = time.Time{} }},
		"an email's object": {strings.Replace(hardBounce, `"bob@example.net"`, `{"a":"bob@example.net"}`, 1), func(e *relay.Event) { e.Email = "" }},
		"an email's null":   {strings.Replace(hardBounce, `"bob@example.net"`, `null`, 1), func(e *relay.Event) { e.Email = "" }},
		"an email too long": {strings.Replace(hardBounce, `bob@`, strings.Repeat("x", 1000)+"@", 1), func(e *relay.Event) { e.Email = "" }},
		"a reason too long": {strings.Replace(hardBounce, `5.1.1 no such user`, strings.Repeat("é", 600), 1), func(e *relay.Event) { e.BounceReason = strings.Repeat("é", 500) }},
		"the same twice":    {strings.Replace(hardBounce, `"id":"evt_1"`, `"id":"evt_0","id":"evt_1"`, 1), func(*relay.Event) {}},
		"a NUL":             {strings.Replace(hardBounce, `no such user`, `no such\u0000 user`, 1), func(*relay.Event) {}},
		"data is a list": {strings.Replace(strings.Replace(hardBounce, `"data":{`, `"data":[{`, 1), `}}`, `}]}`, 1), func(e *relay.Event) {
			*e = relay.Event{ID: e.ID, Type: e.Type, Created: e.Created, Received: e.Received}
		}},
	} {
		want := whole
		tt.want(&want)
		if got, err := parse([]byte(tt.body), received); err != nil || got != want {
			t.Errorf("%s:\n got %+v, %v\nwant %+v", name, got, err, want)
		}
	}
}

// TestWithoutAnID: the content is the id, so that the same is the same.
func TestWithoutAnID(t *testing.T) {
	ids := map[string]bool{}
	for _, body := range []string{
		strings.Replace(hardBounce, `"id":"evt_1",`, "", 1), strings.Replace(hardBounce, `"evt_1"`, "null", 1), strings.Replace(hardBounce, `"evt_1"`, `""`, 1),
		strings.Replace(hardBounce, "evt_1", strings.Repeat("x", 300), 1), "{}",
	} {
		a, errA := parse([]byte(body), received)
		b, errB := parse([]byte(body), received.Add(time.Hour))
		if errA != nil || errB != nil || a.ID != b.ID || !strings.HasPrefix(a.ID, "sha256:") || ids[a.ID] {
			t.Errorf("%s: %s, %s", body, a.ID, b.ID)
		}
		ids[a.ID] = true
	}
	if e, _ := parse([]byte(`{"id":17}`), received); e.ID != "17" {
		t.Errorf("a number: %s", e.ID)
	}
}

// FuzzParse: whatever is signed, nothing breaks, and what is kept is bounded
// and text.
func FuzzParse(f *testing.F) {
	for _, s := range []string{hardBounce, "{}", "null", `{"data":[]}`, `{"id":-1e9,"data":{"timestamp":"0000-01-01T00:00:00Z"}}`, `{"id":"\ud800"}`, "{\"type\":\"\xff\"}",
		strings.Repeat(`{"data":`, 200) + "1" + strings.Repeat("}", 200)} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		e, err := parse(body, received)
		if err != nil {
			if e != (relay.Event{}) {
				t.Errorf("an error and %+v", e)
			}
			return
		}
		if e.ID == "" || len(e.ID) > maxID || !e.Received.Equal(received) {
			t.Errorf("%+v", e)
		}
		for _, s := range []string{e.ID, e.Type, e.Email, e.MessageID, e.BounceCode, e.BounceReason} {
			if len(s) > maxText || strings.ToValidUTF8(s, "") != s || strings.Contains(s, "\x00") {
				t.Errorf("%q", s)
			}
		}
		for _, at := range []time.Time{e.Created, e.Occurred} {
			if !at.IsZero() && (at.Year() < 0 || at.Year() > 10000) {
				t.Errorf("%s", at)
			}
		}
		if again, err := parse(body, received); err != nil || again != e {
			t.Errorf("the second time: %+v, %v", again, err)
		}
	})
}

// TestSecretsChangeInUse: the new one and the one before it count, the one
// before that no more.
func TestSecretsChangeInUse(t *testing.T) {
	h, _ := newHandler("first")
	for i, secrets := range [][]string{{"first"}, {"second", "first"}, {"third", "second"}} {
		h.Configure(Settings{Secrets: secrets})
		for _, s := range []string{"first", "second", "third"} {
			want := 401
			if slices.Contains(secrets, s) {
				want = 200
			}
			if status, _ := ask(t, h, request("POST", "/webhook", Sign(s, []byte(hardBounce)), hardBounce)); status != want {
				t.Errorf("step %d, %s: %d, want %d", i, s, status, want)
			}
		}
	}
}
