package admin

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"github.com/smtp2rest/smtp2rest/relay/forward"
	"github.com/smtp2rest/smtp2rest/relay/store"
)

// fiveForwards are events for two endpoints, one of them a dead letter.
func fiveForwards(t *testing.T) *LocalForwards {
	t.Helper()
	s, err := store.Open(t.Context(), store.SQLite(t.TempDir()), store.Options{Log: slog.New(slog.DiscardHandler)})
	must(t, err)
	t.Cleanup(func() { must(t, s.Close()) })
	kept := s.Forwards
	var items []forward.Item
	for n := range 5 {
		items = append(items, forward.Item{Endpoint: []string{"crm", "ops"}[n%2], ID: fmt.Sprintf("evr_%d", n), Type: forward.Sent, Mail: "m1", Body: []byte(`{}`), Created: noon})
	}
	_, err = kept.AddForwards(t.Context(), items, nil)
	must(t, err)
	last, err := kept.ListForwards(t.Context(), forward.Filter{ID: "evr_4"})
	must(t, err)
	last[0].Dead, last[0].Why = true, "HTTP 410"
	must(t, kept.SettleForwards(t.Context(), []forward.Settled{{Item: last[0]}}))
	return NewForwards(kept, nil)
}

// What an operator asks comes to the same in this process and through the socket.
func TestForwardsBothWays(t *testing.T) {
	local := fiveForwards(t)
	path := socketPath(t)
	server := NewServer(ServerOptions{Admin: New(Options{}), Forwards: fiveForwards(t), Path: path})
	must(t, server.Start(t.Context()))
	t.Cleanup(func() { stop(t, server) })
	client, err := Dial(t.Context(), path)
	must(t, err)
	list := func(f ForwardFilter) func(context.Context, Forwards) (any, error) {
		return func(ctx context.Context, o Forwards) (any, error) { return o.ListForwards(ctx, f) }
	}
	all := func(f ForwardFilter) func(context.Context, Forwards) (any, error) {
		return func(ctx context.Context, o Forwards) (any, error) {
			var ids []string
			for one, err := range AllForwards(ctx, o, f) {
				if err != nil {
					return nil, err
				}
				ids = append(ids, one.ID)
			}
			return strings.Join(ids, " "), nil
		}
	}
	for _, s := range []struct {
		name string
		call func(context.Context, Forwards) (any, error)
		want string // part of the result as JSON
		kind string
	}{
		{"list a page", list(ForwardFilter{Limit: 2}), `"next":"2"`, ""},
		{"list the next", list(ForwardFilter{Limit: 2, After: "2"}), `{"entries":[{"endpoint":"crm","id":"evr_2"`, ""},
		{"list from nowhere", list(ForwardFilter{After: "x"}), "", "bad_request"},
		{"list page by page", all(ForwardFilter{Limit: 2}), `"evr_0 evr_1 evr_2 evr_3 evr_4"`, ""},
		{"list an endpoint's", all(ForwardFilter{Limit: 1, Endpoint: "ops"}), `"evr_1 evr_3"`, ""},
		{"list dead letters", list(ForwardFilter{Dead: true}), `"state":"dead"`, ""},
		{"drop nothing", func(ctx context.Context, o Forwards) (any, error) { return o.DropForwards(ctx, ForwardFilter{}) }, "0", "nothing_selected"},
		{"retry", func(ctx context.Context, o Forwards) (any, error) {
			return o.RetryForwards(ctx, ForwardFilter{Dead: true})
		}, "1", ""},
		{"drop", func(ctx context.Context, o Forwards) (any, error) {
			return o.DropForwards(ctx, ForwardFilter{Endpoint: "crm"})
		}, "3", ""},
		{"list what is left", all(ForwardFilter{}), `"evr_1 evr_3"`, ""},
	} {
		for name, o := range map[string]Forwards{"local": local, "by the socket": client} {
			got, err := s.call(t.Context(), o)
			if kind := kinds(err); kind != s.kind {
				t.Errorf("%s, %s: %v, want %q", s.name, name, err, s.kind)
			} else if err == nil && !strings.Contains(asJSON(t, got), s.want) {
				t.Errorf("%s, %s: %s, want %s", s.name, name, asJSON(t, got), s.want)
			}
		}
	}
}
