package app

import (
	"bytes"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/smtp2rest/smtp2rest/relay/provider/nexuspromail"
	"github.com/smtp2rest/smtp2rest/relay/webhook"
)

// TestEventWarnings: some forgeries are nobody's business, many for long are; an
// event that cannot be kept is at once.
func TestEventWarnings(t *testing.T) {
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
		for _, n := range eventWarnings(tt.standing, "", now) {
			got = append(got, n.Why)
		}
		if s := strings.Join(got, ", "); s != tt.want {
			t.Errorf("%s: %q, want %q", name, s, tt.want)
		}
	}
}

// TestTheEndpointStands: what comes without a good signature is counted until
// one comes that has it, and status tells of it.
func TestTheEndpointStands(t *testing.T) {
	h := newHooked(t, "")
	told := func() (list []string) {
		for _, w := range h.app.running.status(t.Context(), time.Now().Add(time.Hour)) {
			if strings.Contains(w.What, "the provider's events") {
				list = append(list, w.What+": "+w.Why)
			}
		}
		return list
	}
	for range forgedMany {
		if got := postEvent(t, h.app, "whsec_wrong", "test", "bob@example.net"); got != 401 {
			t.Errorf("a wrong signature: %d", got)
		}
	}
	if got := told(); len(got) != 1 || !strings.Contains(got[0], "5 requests to the webhook in a row") {
		t.Errorf("of a wrong secret: %q", got)
	}
	closeStore := h.app.running.stops[1] // the second that was made, after what gives memory back
	if err := closeStore(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := postEvent(t, h.app, "whsec_test", "test", "bob@example.net"); got != 503 {
		t.Errorf("records that cannot be written: %d", got)
	}
	if got := told(); len(got) != 1 || !strings.Contains(got[0], "cannot be kept") {
		t.Errorf("of records that cannot be written: %q", got)
	}
}

// postEvent tells a daemon of an event as the provider does, and returns the status of its answer.
func postEvent(t *testing.T, a *App, secret, kind, email string) int {
	t.Helper()
	return postEventTo(t, a, "/webhook", secret, kind, email)
}

func postEventTo(t *testing.T, a *App, path, secret, kind, email string) int {
	t.Helper()
	body := fmt.Appendf(nil, `{"id":"evt_%s_%s","type":%q,"data":{"email":%q}}`, kind, email, kind, email)
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+a.WebhookAddr().String()+path, bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set(nexuspromail.SignatureHeader, nexuspromail.Sign(secret, body))
	client := &http.Client{Timeout: patience, Transport: &http.Transport{DisableKeepAlives: true}}
	resp, err := client.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	_ = resp.Body.Close()
	return resp.StatusCode
}
