package admin

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/smtp2rest/smtp2rest/relay/suppress"
)

// suppressionSteps are calls in an order; each must come to the same on a
// store in this process and through the socket.
func suppressionSteps() []struct {
	name string
	call func(ctx context.Context, s Suppressions) (any, error)
	want string // part of the result as JSON
	kind string
} {
	type result = any
	add := func(list ...Suppression) func(context.Context, Suppressions) (any, error) {
		return func(ctx context.Context, s Suppressions) (any, error) { return s.AddSuppressions(ctx, list) }
	}
	remove := func(list ...string) func(context.Context, Suppressions) (any, error) {
		return func(ctx context.Context, s Suppressions) (any, error) { return s.RemoveSuppressions(ctx, list) }
	}
	list := func(f SuppressionFilter) func(context.Context, Suppressions) (any, error) {
		return func(ctx context.Context, s Suppressions) (any, error) { return s.ListSuppressions(ctx, f) }
	}
	get := func(a string) func(context.Context, Suppressions) (any, error) {
		return func(ctx context.Context, s Suppressions) (any, error) { return s.GetSuppression(ctx, a) }
	}
	many := make([]Suppression, MaxSuppressions+1)
	return []struct {
		name string
		call func(context.Context, Suppressions) (result, error)
		want string
		kind string
	}{
		{"list nothing", list(SuppressionFilter{}), `{"entries":[]}`, ""},
		{"get none", get("bob@example.net"), "", "not_suppressed"},
		{"add", add(Suppression{Address: "Bob@Example.NET", Since: noon, Note: "asked by phone"}), "1", ""},
		{"get in another form", get(`"BOB"@example.net.`), `{"address":"bob@example.net","reason":"operator","source":"operator","since":"2026-03-29T12:00:00Z","note":"asked by phone"}`, ""},
		{"add others", add(
			Suppression{Address: "a@x.example", Reason: "hard_bounce", Source: "webhook", Since: noon, Expires: noon.AddDate(1000, 0, 0), Event: "evt_1", Detail: "550 5.1.1"},
			Suppression{Address: "b@x.example", Reason: "complaint", Since: noon}), "2", ""},
		{"list all", list(SuppressionFilter{}), `"address":"a@x.example","reason":"hard_bounce","source":"webhook","since":"2026-03-29T12:00:00Z","expires":"3026-03-29T12:00:00Z","event":"evt_1","detail":"550 5.1.1"`, ""},
		{"list a page", list(SuppressionFilter{Limit: 2}), `"next":"b@x.example"`, ""},
		{"list the next", list(SuppressionFilter{Limit: 2, After: "b@x.example"}), `[{"address":"bob@example.net"`, ""},
		{"list a domain", list(SuppressionFilter{Domain: "Example.NET"}), `[{"address":"bob@example.net"`, ""},
		{"list reasons", list(SuppressionFilter{Reasons: []string{"complaint"}}), `[{"address":"b@x.example"`, ""},
		{"list sources", list(SuppressionFilter{Sources: []string{"webhook"}}), `[{"address":"a@x.example"`, ""},
		{"no such reason", list(SuppressionFilter{Reasons: []string{"bounce"}}), "", "bad_request"},
		{"no such source", list(SuppressionFilter{Sources: []string{"cli"}}), "", "bad_request"},
		{"add none", add(), "0", ""},
		{"add with a wrong reason", add(Suppression{Address: "c@x.example"}, Suppression{Address: "d@x.example", Reason: "x"}), "0", "bad_request"},
		{"add with a wrong source", add(Suppression{Address: "c@x.example", Source: "x"}), "0", "bad_request"},
		{"add nobody", add(Suppression{Address: "bob"}), "0", "bad_request"},
		{"add no domain", add(Suppression{Address: "bob@"}), "0", "bad_request"},
		{"add what has expired", add(Suppression{Address: "c@x.example", Expires: noon.AddDate(-1, 0, 0)}), "0", "bad_request"},
		{"add a novel", add(Suppression{Address: "c@x.example", Note: strings.Repeat("x", maxNote+1)}), "0", "bad_request"},
		{"add too many", add(many...), "0", "bad_request"},
		{"none of these is there", get("c@x.example"), "", "not_suppressed"},
		{"remove", remove("B@X.example", "nobody@x.example"), "1", ""},
		{"remove too many", remove(make([]string, MaxSuppressions+1)...), "0", "bad_request"},
		{"it is gone", get("b@x.example"), "", "not_suppressed"},
	}
}

func TestSuppressionsBothWays(t *testing.T) {
	local := NewSuppressions(suppress.NewSplit(suppress.NewMemory(0)))
	path := socketPath(t)
	server := NewServer(ServerOptions{Admin: New(Options{}), Suppressions: NewSuppressions(suppress.NewSplit(suppress.NewMemory(0))), Path: path})
	must(t, server.Start(t.Context()))
	t.Cleanup(func() { stop(t, server) })
	client, err := Dial(t.Context(), path)
	must(t, err)
	for _, s := range suppressionSteps() {
		var results []string
		for _, way := range []Suppressions{local, client} {
			got, err := s.call(t.Context(), way)
			body, jerr := json.Marshal(got)
			must(t, jerr)
			if kinds(err) != s.kind || err == nil && !strings.Contains(string(body), s.want) {
				t.Errorf("%s, %T: %s, %q %v; want %s, %q", s.name, way, body, kinds(err), err, s.want, s.kind)
			}
			results = append(results, fmt.Sprintf("%s %v", body, err))
		}
		if results[0] != results[1] {
			t.Errorf("%s:\nhere    %s\nthrough %s", s.name, results[0], results[1])
		}
	}
}

// TestAllSuppressions: pages follow each other, and none is missed.
func TestAllSuppressions(t *testing.T) {
	s := NewSuppressions(suppress.NewSplit(suppress.NewMemory(0)))
	const n = 25
	for i := range n {
		_, err := s.AddSuppressions(t.Context(), []Suppression{{Address: fmt.Sprintf("%02d@x.example", i)}})
		must(t, err)
	}
	seen := 0
	for e, err := range AllSuppressions(t.Context(), s, SuppressionFilter{Limit: 7}) {
		must(t, err)
		if want := fmt.Sprintf("%02d@x.example", seen); e.Address != want || time.Since(e.Since) > time.Minute {
			t.Errorf("%+v, want %s", e, want)
		}
		seen++
	}
	if seen != n {
		t.Errorf("%d of %d", seen, n)
	}
}

// TestAnOlderDaemon: one that knows nothing of suppressions says so.
func TestAnOlderDaemon(t *testing.T) {
	c := dialed(t, New(Options{}))
	if _, err := c.ListSuppressions(t.Context(), SuppressionFilter{}); err == nil || !strings.Contains(err.Error(), "another version") {
		t.Error(err)
	}
}
