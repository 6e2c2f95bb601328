package admin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/smtp2rest/smtp2rest/relay"
	"github.com/smtp2rest/smtp2rest/relay/pace"
	"github.com/smtp2rest/smtp2rest/relay/queue"
	"github.com/smtp2rest/smtp2rest/relay/warm"
)

// step is one call, and what it must come to whichever way it goes.
type step struct {
	name string
	call func(ctx context.Context, a Admin) (any, error)
	want string // part of the result as JSON
	kind string // of the error; part of kinds
}

func list(f Filter) func(context.Context, Admin) (any, error) {
	return func(ctx context.Context, a Admin) (any, error) { return a.List(ctx, f) }
}

func get(id string) func(context.Context, Admin) (any, error) {
	return func(ctx context.Context, a Admin) (any, error) { return a.Get(ctx, id) }
}

func raw(id string) func(context.Context, Admin) (any, error) {
	return func(ctx context.Context, a Admin) (any, error) {
		r, err := a.Raw(ctx, id)
		if err != nil {
			return nil, err
		}
		b, err := io.ReadAll(r)
		return fmt.Sprintf("%d bytes, sum %d", len(b), crc32.ChecksumIEEE(b)), errors.Join(err, r.Close())
	}
}

func changing(f func(Admin, context.Context, Filter) (int, error), filter Filter) func(context.Context, Admin) (any, error) {
	return func(ctx context.Context, a Admin) (any, error) { return f(a, ctx, filter) }
}

// steps are calls in an order: what one changes the next ones see.
func steps() []step {
	changers := map[string]func(Admin, context.Context, Filter) (int, error){
		"hold": Admin.Hold, "release": Admin.Release, "retry": Admin.Retry, "drop": Admin.Drop,
	}
	all := []step{
		{"status", func(ctx context.Context, a Admin) (any, error) { return a.Status(ctx) }, `"why":"the API refuses the key"`, ""},
		{"list", list(Filter{}), `"id":"aa100000000000000000","sender":"shop@example.com"`, ""},
		{"list by state", list(Filter{States: []string{"held", "failed"}}), `"why":"held by an operator; last: the API was not available: connection refused"`, ""},
		{"list by sender", list(Filter{Sender: "NEWS@example.org"}), `"why":"refused by the API: HTTP 422 to: no such domain"`, ""},
		{"list by recipient", list(Filter{Recipient: "b@EXAMPLE.net"}), `"number":1,"recipient":"B@example.net"`, ""},
		{"list by age", list(Filter{From: noon.Add(3 * time.Minute), Until: noon.Add(4 * time.Minute)}), `"due":"2999-01-01T00:00:00Z"`, ""},
		{"list by id", list(Filter{ID: "ba2"}), `"state":"sent"`, ""},
		{"list nothing", list(Filter{ID: "zz"}), `{"entries":[]}`, ""},
		{"list a page", list(Filter{Limit: 2}), `"cursor":"`, ""},
		{"list with a wrong cursor", list(Filter{Cursor: "nonsense"}), "", "bad_request"},
		{"list of no such state", list(Filter{States: []string{"wating"}}), "", "bad_request"},
		{"get", get("ab200000000000000000"), `"took_ms":1500`, ""},
		{"get by a beginning", get("ab2"), `"text":"the API was not available: HTTP 503 maintenance"`, ""},
		{"get a hostile one", get("ca1"), `"sender":"\u001b]0;owned`, ""},
		{"get an ambiguous one", get("a"), "", "ambiguous {Prefix:a IDs:[aa100000000000000000 ab100000000000000000 ab200000000000000000] More:false}"},
		{"get none", get("zz"), "", "not_found"},
		{"get an empty id", get(""), "", "not_found"},
		{"raw", raw("aa1"), "17 bytes", ""},
		{"raw of a large one", raw("da1"), "1048576 bytes", ""},
		{"raw of a damaged one", raw("db1"), "1048576 bytes", "damaged"},
		{"get it after that", get("db1"), `"state":"failed"`, ""},
		{"raw of a sent one", raw("ba2"), "", "not_found"},
		{"raw of none", raw("zz"), "", "not_found"},
		{"raw of an ambiguous one", raw("b"), "", "ambiguous"},
		{"raw of an empty id", raw(""), "", "not_found"},
	}
	for _, name := range []string{"hold", "release", "retry", "drop"} {
		all = append(all,
			step{name + " nothing said", changing(changers[name], Filter{}), "0", "nothing_selected"},
			step{name + " a page is no filter", changing(changers[name], Filter{Limit: 1, Cursor: "1.1"}), "0", "nothing_selected"},
			step{name + " no such state", changing(changers[name], Filter{All: true, States: []string{"x"}}), "0", "bad_request"},
			step{name + " nobody", changing(changers[name], Filter{Sender: "nobody@example.com"}), "0", ""})
	}
	return append(all,
		step{"hold one", changing(Admin.Hold, Filter{ID: "aa1", Recipient: "a@example.net"}), "1", ""},
		step{"hold all", changing(Admin.Hold, Filter{All: true}), "5", ""},
		step{"release by sender", changing(Admin.Release, Filter{Sender: "shop@example.com"}), "4", ""},
		step{"release all", changing(Admin.Release, Filter{All: true}), "3", ""},
		step{"flush", func(ctx context.Context, a Admin) (any, error) { return a.Flush(ctx) }, "7", ""},
		step{"retry what failed", changing(Admin.Retry, Filter{States: []string{"failed"}}), "1", ""},
		step{"reassign nothing said", func(ctx context.Context, a Admin) (any, error) { return a.Reassign(ctx, Filter{}, "default") }, "0", "nothing_selected"},
		step{"reassign to nonsense", func(ctx context.Context, a Admin) (any, error) { return a.Reassign(ctx, Filter{All: true}, "a/b") }, "0", "bad_request"},
		step{"reassign what is there", func(ctx context.Context, a Admin) (any, error) { return a.Reassign(ctx, Filter{All: true}, "default") }, "0", ""},
		step{"list an account", list(Filter{Account: "shop"}), `"entries":[]`, ""},
		step{"drop one", changing(Admin.Drop, Filter{ID: "bb1"}), "1", ""},
		step{"list the rest", list(Filter{}), `"id":"aa1`, ""},
		step{"drop all", changing(Admin.Drop, Filter{All: true}), "8", ""},
		step{"list what was sent", list(Filter{}), `"id":"ba2`, ""},
		step{"get a dropped one", get("aa1"), "", "not_found"},
	)
}

// state is a daemon's at which nothing moves while the test runs.
func state(q queue.Operator) Options {
	far := time.Date(2999, 1, 1, 0, 0, 0, 0, time.Local)
	return Options{
		Queue: q, Version: "v1", Started: noon,
		Pace: func() pace.State {
			return pace.State{PausedUntil: far, Rate: 12.5, Found: true, InFlight: 2,
				Breaker: pace.BreakerState{Open: true, Why: pace.KeyBad, Since: noon, ProbeAt: far}}
		},
		Warming: func(time.Time) []warm.DomainState {
			return []warm.DomainState{{Domain: "example.org", Begin: noon, Day: 2, Bounded: true, Cap: 10, Sent: 10, Next: far}}
		},
	}
}

// Both ways must come to the same in results, in errors and in what is stored.
func TestTheSocketChangesNothing(t *testing.T) {
	here, there := t.TempDir(), t.TempDir()
	local, remote := openStore(t, here), openStore(t, there)
	seed(t, local, here)
	seed(t, remote, there)
	a, b := New(state(local)), dialed(t, New(state(remote)))
	for _, s := range steps() {
		t.Run(s.name, func(t *testing.T) {
			gotA, errA := s.call(t.Context(), a)
			gotB, errB := s.call(t.Context(), b)
			if fmt.Sprint(errA) != fmt.Sprint(errB) && !strings.HasPrefix(s.name, "raw of a damaged") {
				t.Errorf("errors differ:\n here %v\nthere %v", errA, errB)
			}
			if kinds(errA) != kinds(errB) || !strings.HasPrefix(kinds(errA), s.kind) || s.kind == "" && kinds(errA) != "" {
				t.Errorf("kinds of error: here %q, there %q, want %q (%v)", kinds(errA), kinds(errB), s.kind, errA)
			}
			if !reflect.DeepEqual(gotA, gotB) {
				t.Errorf("results differ:\n here %s\nthere %s", asJSON(t, gotA), asJSON(t, gotB))
			}
			if got := asJSON(t, gotA); errA == nil && !strings.Contains(got, s.want) {
				t.Errorf("got %s\nwant in it %s", got, s.want)
			}
		})
	}
}

func asJSON(t *testing.T, v any) string {
	t.Helper()
	b, err := json.Marshal(v)
	must(t, err)
	return string(b)
}

// Words must be there for every state of a recipient and every kind of outcome.
func TestEveryStateHasItsWords(t *testing.T) {
	v := view{now: noon, running: true}
	seen := map[string]bool{}
	for _, s := range queue.States() {
		if why := v.why(queue.Mail{}, queue.Recipient{State: s}); why == "" {
			t.Errorf("no words for %s without an attempt", s)
		}
		for _, k := range relay.Kinds() {
			r := queue.Recipient{State: s, History: []queue.Attempt{{Outcome: relay.Outcome{Kind: k, Status: 299}}}}
			if why := v.why(queue.Mail{}, r); why == "" {
				t.Errorf("no words for %s after %s", s, k)
			}
		}
	}
	for _, k := range relay.Kinds() {
		words := kindText(relay.Outcome{Kind: k})
		if seen[words] || words == "" {
			t.Errorf("%s is called %q, as is another", k, words)
		}
		seen[words] = true
	}
}

// What a recipient that is due waits for, the strongest reason first.
func TestWhatIsWaitedFor(t *testing.T) {
	mail := queue.Mail{Domain: "Example.org"}
	full := []warm.DomainState{{Domain: "example.org", Day: 2, Bounded: true, Cap: 10, Sent: 10}}
	down := pace.State{Breaker: pace.BreakerState{Open: true, Why: pace.Down}, PausedUntil: noon.Add(1)}
	tests := []struct {
		name string
		v    view
		mail queue.Mail
		want string
	}{
		{"no daemon", view{now: noon}, mail, "no daemon runs"},
		{"breaker", view{now: noon, running: true, pace: down, warming: full}, mail, "the API is down"},
		{"gate", view{now: noon, running: true, pace: pace.State{PausedUntil: noon.Add(1)}, warming: full}, mail, string(pace.Paused)},
		{"gate that is open again", view{now: noon, running: true, pace: pace.State{PausedUntil: noon}}, mail, "its turn comes"},
		{"the day's cap", view{now: noon, running: true, warming: full}, mail, full[0].Why()},
		{"urgent", view{now: noon, running: true, warming: full}, queue.Mail{Domain: "example.org", Urgent: true}, "its turn comes"},
		{"another domain", view{now: noon, running: true, warming: full}, queue.Mail{Domain: "example.com"}, "its turn comes"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := tt.v.why(tt.mail, queue.Recipient{Due: noon}); got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
			if got := tt.v.why(tt.mail, queue.Recipient{Due: noon.Add(time.Second)}); got != "not due yet" {
				t.Errorf("not due and never tried: %q", got)
			}
		})
	}
}

// The soonest that a recipient can be tried is never before what holds it up.
func TestNext(t *testing.T) {
	soon, later := noon.Add(90*time.Second), noon.Add(time.Hour)
	open := func(probe, paused time.Time) view {
		return view{now: noon, running: true, pace: pace.State{PausedUntil: paused, Breaker: pace.BreakerState{Open: true, ProbeAt: probe}}}
	}
	paused := view{now: noon, running: true, pace: pace.State{PausedUntil: soon}}
	full := view{now: noon, running: true, warming: []warm.DomainState{{Domain: "example.org", Bounded: true, Cap: 1, Sent: 1, Next: later}}}
	for name, tt := range map[string]struct {
		v         view
		mail      queue.Mail
		due, want time.Time
	}{
		"due":                   {view{now: noon, running: true}, queue.Mail{}, noon, noon},
		"no daemon":             {view{now: noon}, queue.Mail{}, noon, noon},
		"a pause":               {paused, queue.Mail{}, noon, soon},
		"due after the pause":   {paused, queue.Mail{}, later, later},
		"an outage":             {open(soon, time.Time{}), queue.Mail{}, noon, soon},
		"an outage and a pause": {open(soon, later), queue.Mail{}, noon, later},
		"the day's cap":         {full, queue.Mail{Domain: "example.org"}, noon, later},
		"urgent":                {full, queue.Mail{Domain: "example.org", Urgent: true}, noon, noon},
	} {
		p := tt.v.progress(tt.mail, queue.Recipient{State: queue.Waiting, Due: tt.due})
		if !p.Next.Equal(tt.want) || !p.Due.Equal(tt.due) {
			t.Errorf("%s: %+v, want %s", name, p, tt.want)
		}
	}
	if p := paused.progress(queue.Mail{}, queue.Recipient{State: queue.Held, Due: noon}); !p.Next.IsZero() {
		t.Errorf("held: %+v", p)
	}
}
