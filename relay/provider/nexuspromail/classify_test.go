package nexuspromail

import (
	"encoding/pem"
	"net/http"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/smtp2rest/smtp2rest/relay"
)

func pemOf(der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

var now = time.Date(2026, 5, 13, 10, 0, 0, 0, time.UTC)

func TestClassify(t *testing.T) {
	tests := []struct {
		name   string
		status int
		body   string
		kind   relay.Kind
		detail string
	}{
		{"accepted", 200, `{"message_id":"msg_1"}`, relay.Accepted, ""},
		{"blank id", 200, `{"message_id":"  "}`, relay.Ambiguous, ""},
		{"created", 201, `{"message_id":"msg_1"}`, relay.Accepted, ""},
		{"a portal's page", 200, `<html>Welcome to the hotel</html>`, relay.Ambiguous, ""},
		{"no message_id", 200, `{"status":"ok"}`, relay.Ambiguous, ""},
		{"empty message_id", 200, `{"message_id":""}`, relay.Ambiguous, ""},
		{"message_id of another type", 200, `{"message_id":7}`, relay.Ambiguous, ""},
		{"nothing", 204, ``, relay.Ambiguous, ""},
		{"suppressed", 422, `{"error":"suppressed"}`, relay.Suppressed, "suppressed"},
		{"validation", 422, `{"error":"validation","message":"to.email is\n required"}`, relay.Refused, "to.email is required"},
		{"validation without words", 422, ``, relay.Refused, ""},
		{"bad request", 400, `{"error":"bad json"}`, relay.Refused, "bad json"},
		{"too large", 413, ``, relay.TooLarge, ""},
		{"wrong key", 401, `{"error":"invalid key"}`, relay.Unauthorized, "invalid key"},
		{"forbidden", 403, ``, relay.Unauthorized, ""},
		{"rate", 429, ``, relay.RateLimited, ""},
		{"redirect", 302, ``, relay.Unavailable, ""},
		{"wrong path", 404, `not found`, relay.Unavailable, ""},
		{"wrong method", 405, ``, relay.Unavailable, ""},
		{"slow", 408, ``, relay.Unavailable, ""},
		{"down", 500, `{"error":"oops"}`, relay.Unavailable, "oops"},
		{"no gateway", 502, `<html>`, relay.Unavailable, ""},
		{"maintenance", 503, ``, relay.Unavailable, ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			out := classify(tt.status, http.Header{}, []byte(tt.body), now)
			if out.Kind != tt.kind || out.Status != tt.status || out.Detail != tt.detail {
				t.Errorf("got %+v, want %s with %q", out, tt.kind, tt.detail)
			}
			if !out.Kind.Settled() && out.Kind != relay.RateLimited && out.Cause == nil {
				t.Error("the log would not learn why")
			}
		})
	}
}

func TestRetryAfter(t *testing.T) {
	tests := []struct {
		value string
		want  time.Duration
	}{
		{"60", time.Minute},
		{" 7 ", 7 * time.Second},
		{"0", 0},
		{"0.5", 500 * time.Millisecond},
		{"", time.Minute},
		{"soon", time.Minute},
		{"-5", time.Minute},
		{"NaN", time.Minute},
		{"99999999999999999999", 365 * 24 * time.Hour},
		{"Fri, 31 Dec 9999 23:59:59 GMT", 365 * 24 * time.Hour},
		{"Wed, 13 May 2026 10:02:00 GMT", 2 * time.Minute},
		{"Wed, 13 May 2026 09:00:00 GMT", 0},
		{"Wednesday, 13-May-26 10:00:30 GMT", 30 * time.Second},
		{"Wed May 13 10:00:10 2026", 10 * time.Second},
	}
	for _, tt := range tests {
		if got := retryAfter(tt.value, now); got != tt.want {
			t.Errorf("retryAfter(%q) = %s, want %s", tt.value, got, tt.want)
		}
	}
}

func FuzzClassify(f *testing.F) {
	f.Add(200, "60", `{"message_id":"msg_1"}`)
	f.Add(422, "", `{"error":"x","message":"\u0000\r\nforged"}`)
	f.Add(429, "Wed, 13 May 2026 10:02:00 GMT", ``)
	f.Fuzz(func(t *testing.T, status int, after, body string) {
		out := classify(status, http.Header{"Retry-After": {after}}, []byte(body), now)
		if out.Kind == relay.Accepted && (out.MessageID == "" || status/100 != 2) {
			t.Errorf("accepted without reason: %d %q", status, body)
		}
		if out.RetryAfter < 0 || out.RetryAfter > 365*24*time.Hour {
			t.Errorf("Retry-After %q became %s", after, out.RetryAfter)
		}
		for _, s := range []string{out.Detail, out.MessageID} {
			if !utf8.ValidString(s) || len(s) > maxDetail+3 || strings.ContainsAny(s, "\r\n\x00\x1b") {
				t.Errorf("unfit for a log line: %q", s)
			}
		}
	})
}
