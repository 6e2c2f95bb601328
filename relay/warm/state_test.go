package warm

import (
	"testing"
	"time"
)

func TestStateText(t *testing.T) {
	plan := Plan{Domain: domain, Begin: begin, Table: []int{1, 25, 50, 0}}
	tests := []struct {
		name             string
		day              int
		sent, inFlight   int
		text, waitingWhy string
	}{
		{"fresh", 3, 0, 0, "mail.example.com may send 50 mails today (day 3 of its warming), none sent", ""},
		{"some", 3, 12, 5, "mail.example.com may send 50 mails today (day 3 of its warming), 12 sent", ""},
		{"all sent", 3, 50, 0, "", "mail.example.com may send 50 mails today (day 3 of its warming), all sent; next at 00:00 UTC"},
		{"being sent", 3, 48, 2, "", "mail.example.com may send 50 mails today (day 3 of its warming), all sent or being sent; next at 00:00 UTC"},
		{"over", 3, 53, 0, "", "mail.example.com may send 50 mails today (day 3 of its warming), 53 sent; next at 00:00 UTC"},
		{"one", 1, 1, 0, "", "mail.example.com may send 1 mail today (day 1 of its warming), all sent; next at 00:00 UTC"},
		{"before", -5, 0, 0, "mail.example.com may send 1 mail today (its warming begins on 2026-12-01), none sent", ""},
		{"after", 4, 7, 0, "mail.example.com may send any number of mails (its warming is over)", ""},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			m, now := New([]Plan{plan}), on(tt.day, time.Hour)
			for range tt.sent {
				m.Take(domain, true, now)
				m.Sent(domain, now)
			}
			for range tt.inFlight {
				m.Take(domain, true, now)
			}
			s := m.State(now)[0]
			want := tt.text
			if want == "" {
				want = tt.waitingWhy
			}
			if s.String() != want {
				t.Errorf("%q\nwant %q", s, want)
			}
			if s.Why() != tt.waitingWhy {
				t.Errorf("waits because %q, want %q", s.Why(), tt.waitingWhy)
			}
		})
	}
}

func TestStateIsOrderedAndComplete(t *testing.T) {
	m := New([]Plan{
		{Domain: "b.example", Begin: begin, First: 3},
		{Domain: "a.example", Begin: begin, First: 3, Until: 1},
	})
	m.Take("b.example", false, on(2, 0))
	states := m.State(on(2, time.Hour))
	want := []DomainState{
		{Domain: "a.example", Begin: begin, Day: 2},
		{Domain: "b.example", Begin: begin, Day: 2, Bounded: true, Cap: 3, Reserved: 1, Next: on(3, 0)},
	}
	if len(states) != 2 || states[0] != want[0] || states[1] != want[1] {
		t.Errorf("%+v\nwant %+v", states, want)
	}
}
