package nexuspromail

import (
	"encoding/json"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/smtp2rest/smtp2rest/relay"
)

const hardBounce = `{"id":"evt_1","type":"bounced.hard","created_at":"2026-05-13T10:24:31Z",` +
	`"data":{"message_id":"msg_1","email":"bob@example.net","timestamp":"2026-05-13T10:24:28Z","bounce_code":"550","bounce_reason":"5.1.1 no such user"}}`

// TestVectors checks signatures that openssl and Python made
// (testdata/make-vectors.sh).
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
		if !isSigned([]string{v.Secret}, v.Body, v.Signature) || isSigned([]string{v.Secret + "x"}, v.Body, v.Signature) || isSigned([]string{v.Secret}, append(v.Body, 'x'), v.Signature) {
			t.Errorf("%s: judged wrongly", v.Name)
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
		if got, err := (Events{}).Read([]byte(tt.body), received); err != nil || got != want {
			t.Errorf("%s:\n got %+v, %v\nwant %+v", name, got, err, want)
		}
	}
}

// TestWithoutAnID checks that the id is made of the content, so that an equal event
// has an equal id.
func TestWithoutAnID(t *testing.T) {
	ids := map[string]bool{}
	for _, body := range []string{
		strings.Replace(hardBounce, `"id":"evt_1",`, "", 1), strings.Replace(hardBounce, `"evt_1"`, "null", 1), strings.Replace(hardBounce, `"evt_1"`, `""`, 1),
		strings.Replace(hardBounce, "evt_1", strings.Repeat("x", 300), 1), "{}",
	} {
		a, errA := (Events{}).Read([]byte(body), received)
		b, errB := (Events{}).Read([]byte(body), received.Add(time.Hour))
		if errA != nil || errB != nil || a.ID != b.ID || !strings.HasPrefix(a.ID, "sha256:") || ids[a.ID] {
			t.Errorf("%s: %s, %s", body, a.ID, b.ID)
		}
		ids[a.ID] = true
	}
	if e, _ := (Events{}).Read([]byte(`{"id":17}`), received); e.ID != "17" {
		t.Errorf("a number: %s", e.ID)
	}
}

// FuzzParse checks that no signed body causes a panic, and that what is kept is
// bounded text.
func FuzzParse(f *testing.F) {
	for _, s := range []string{hardBounce, "{}", "null", `{"data":[]}`, `{"id":-1e9,"data":{"timestamp":"0000-01-01T00:00:00Z"}}`, `{"id":"\ud800"}`, "{\"type\":\"\xff\"}",
		strings.Repeat(`{"data":`, 200) + "1" + strings.Repeat("}", 200)} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		e, err := (Events{}).Read(body, received)
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
		if again, err := (Events{}).Read(body, received); err != nil || again != e {
			t.Errorf("the second time: %+v, %v", again, err)
		}
	})
}

func isSigned(secrets []string, body []byte, signature string) bool {
	return Events{}.Signed(secrets, http.Header{http.CanonicalHeaderKey(SignatureHeader): {signature}}, body)
}
