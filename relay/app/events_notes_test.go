package app

import (
	"bytes"
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/smtp2rest/smtp2rest/relay/provider/nexuspromail"
	"github.com/smtp2rest/smtp2rest/relay/webhook"
)

// TestEventNotes: some forgeries are nobody's business, many for long are; an
// event that cannot be kept is at once.
func TestEventNotes(t *testing.T) {
	now := time.Date(2026, 11, 25, 12, 0, 0, 0, time.UTC)
	for name, tt := range map[string]struct {
		standing webhook.Standing
		want     string
	}{
		"all well":        {webhook.Standing{}, ""},
		"a scanner":       {webhook.Standing{Forged: 4, ForgedSince: now.Add(-time.Hour), ForgedLast: now}, ""},
		"a moment's":      {webhook.Standing{Forged: 900, ForgedSince: now.Add(-9 * time.Minute), ForgedLast: now}, ""},
		"long ago":        {webhook.Standing{Forged: 900, ForgedSince: now.Add(-9 * time.Hour), ForgedLast: now.Add(-7 * time.Hour)}, ""},
		"a wrong secret":  {webhook.Standing{Forged: 5, ForgedSince: now.Add(-10 * time.Minute), ForgedLast: now.Add(-time.Minute)}, "5 requests to the webhook in a row had no good signature"},
		"a storage fails": {webhook.Standing{Unkept: errors.New("disk is full"), UnkeptSince: now}, "disk is full"},
	} {
		var got []string
		for _, n := range eventNotes(tt.standing, now) {
			got = append(got, n.Why)
		}
		if s := strings.Join(got, ", "); s != tt.want {
			t.Errorf("%s: %q, want %q", name, s, tt.want)
		}
	}
}

// TestTheEndpointStands: what comes without a good signature is counted until
// one comes that has it, and the daemon's notes are asked of it.
func TestTheEndpointStands(t *testing.T) {
	h := newHooked(t, "")
	post := func(secret string, want int) {
		t.Helper()
		body := []byte(`{"id":"evt_1","type":"test","data":{}}`)
		r, err := http.NewRequest(http.MethodPost, "http://"+h.app.WebhookAddr().String()+"/webhook", bytes.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set(nexuspromail.SignatureHeader, nexuspromail.Sign(secret, body))
		resp, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer http.DefaultClient.CloseIdleConnections()
		if err := resp.Body.Close(); err != nil || resp.StatusCode != want {
			t.Errorf("%d, %v, want %d", resp.StatusCode, err, want)
		}
	}
	told := func() int { return len(h.app.parts.notes(t.Context(), time.Now().Add(time.Hour))) }
	for range forgedMany {
		post("whsec_wrong", 401)
	}
	if n := told(); n != 1 {
		t.Errorf("%d notes of a wrong secret", n)
	}
	if err := h.app.parts.opened.Close(); err != nil {
		t.Fatal(err)
	}
	post("whsec_test", 503)
	if s := h.app.parts.events.Standing(); s.Unkept == nil || s.Forged != 0 || told() != 1 {
		t.Errorf("of records that fail: %+v", s)
	}
}
