package suppress_test

import (
	"fmt"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/smtp2rest/smtp2rest/internal/settings"
	"github.com/smtp2rest/smtp2rest/relay/suppress"
	"github.com/smtp2rest/smtp2rest/relay/suppress/suppresstest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var day0 = time.Date(2026, 5, 1, 12, 0, 0, 0, time.UTC)

func TestMemory(t *testing.T) {
	suppresstest.Run(t, func(*testing.T) suppresstest.Backend {
		return suppresstest.Backend{Store: suppress.NewMemory(0), Flush: func() {}}
	})
}

// TestFullMemoryForgetsTheOldest: and a List over it forgets with it.
func TestFullMemoryForgetsTheOldest(t *testing.T) {
	l := suppress.New(suppress.Options{Settings: settings.Defaults[suppress.Settings](), Store: suppress.NewMemory(3)})
	if err := l.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	defer l.Stop()
	for i := range 10 {
		l.Learn(fmt.Sprintf("%d@x.example", i), suppress.Provider, "", time.Now())
	}
	for i := range 10 {
		if _, ok := l.Lookup(fmt.Sprintf("%d@x.example", i), time.Now()); ok != (i >= 7) {
			t.Errorf("entry %d remembered: %t", i, ok)
		}
	}
}

func TestMerge(t *testing.T) {
	entry := func(r suppress.Reason, s suppress.Source, since, days int) suppress.Entry {
		e := suppress.Entry{Address: "a@x.example", Reason: r, Source: s, Since: day0.AddDate(0, 0, since)}
		if days > 0 {
			e.Expires = day0.AddDate(0, 0, days)
		}
		return e
	}
	hard := entry(suppress.HardBounce, suppress.Webhook, 0, 30)
	provider := entry(suppress.Provider, suppress.API, 1, 31)
	unsubscribed := entry(suppress.Unsubscribe, suppress.Webhook, 2, 32)
	complaint := entry(suppress.Complaint, suppress.Webhook, 2, 32)
	operators := entry(suppress.Operator, suppress.ByOperator, 0, 0)
	aDay := entry(suppress.Operator, suppress.ByOperator, 0, 1)
	expired := entry(suppress.HardBounce, suppress.Webhook, -60, -30)
	expired.Expires = day0.AddDate(0, 0, -30)
	lasting := func(e, o suppress.Entry) suppress.Entry { e.Expires = o.Expires; return e }
	for name, tt := range map[string]struct{ old, learnt, want suppress.Entry }{
		"nothing known":                         {suppress.Entry{}, provider, provider},
		"stronger stays":                        {hard, provider, lasting(hard, provider)},
		"stronger comes":                        {provider, hard, lasting(hard, provider)},
		"complaint after hard bounce":           {hard, complaint, lasting(hard, complaint)},
		"the same again keeps its date":         {hard, entry(suppress.HardBounce, suppress.Webhook, 5, 35), lasting(hard, entry(0, 0, 0, 35))},
		"what expired is not known":             {expired, provider, provider},
		"an operator's stays":                   {operators, hard, operators},
		"but for what lasts longer":             {aDay, hard, hard},
		"a mark prolongs nothing":               {provider, unsubscribed, provider},
		"nor replaces an operator's":            {aDay, unsubscribed, aDay},
		"a mark gives way, with its time":       {unsubscribed, provider, provider},
		"a mark and a mark":                     {unsubscribed, entry(suppress.Unsubscribe, suppress.Webhook, 3, 33), lasting(unsubscribed, entry(0, 0, 0, 33))},
		"an operator's unsubscribe is no mark":  {entry(suppress.Unsubscribe, suppress.ByOperator, 0, 1), unsubscribed, entry(suppress.Unsubscribe, suppress.ByOperator, 0, 1)},
		"an operator's hard bounce, for longer": {entry(suppress.HardBounce, suppress.ByOperator, 0, 90), hard, entry(suppress.HardBounce, suppress.ByOperator, 0, 90)},
	} {
		if got := suppress.Merge(tt.old, tt.learnt, day0); got != tt.want {
			t.Errorf("%s:\n got %+v\nwant %+v", name, got, tt.want)
		}
	}
}

func TestNamesComeBack(t *testing.T) {
	seen := map[string]bool{}
	for _, r := range suppress.Reasons() {
		if back, ok := suppress.ParseReason(r.String()); back != r || !ok || seen[r.String()] || seen[r.Words()] {
			t.Errorf("%s: %v, %t", r, back, ok)
		}
		seen[r.String()], seen[r.Words()] = true, true
	}
	for _, s := range suppress.Sources() {
		if back, ok := suppress.ParseSource(s.String()); back != s || !ok {
			t.Errorf("%s: %v, %t", s, back, ok)
		}
	}
	if _, ok := suppress.ParseReason("unknown"); ok {
		t.Error("unknown is a reason")
	}
	if suppress.Reason(200).String() != "unknown" || suppress.Source(200).String() != "unknown" {
		t.Error("what there is not has a name")
	}
}
