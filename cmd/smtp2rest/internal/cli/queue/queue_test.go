package queue

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/smtp2rest/smtp2rest/relay/admin"
)

// What is due and cannot go out yet is not said to go out now.
func TestNextWaitsForTheAPI(t *testing.T) {
	now := time.Now()
	for want, p := range map[string]admin.Progress{
		"now": {State: "waiting", Due: now, Next: now},
		"2m":  {State: "waiting", Due: now, Next: now.Add(90 * time.Second)},
		"-":   {State: "held", Due: now},
	} {
		if got := next(p); got != want {
			t.Errorf("%+v: %q, want %q", p, got, want)
		}
	}
	if got := ProgressText(admin.Progress{State: "waiting", Due: now, Next: now.Add(90 * time.Second), Why: "the API is down"}); got != "waiting, next try in 2m: the API is down" {
		t.Errorf("show says %q", got)
	}
}

// Between the question whose an id is and the change another mail may come
// that begins alike.
func TestIDsAreChangedInFull(t *testing.T) {
	filters, err := oneForEach(t.Context(), oneMail{}, admin.Filter{Recipient: "a@b"}, []string{"aa", "bb"})
	want := "[{ID:aa-whole Recipient:a@b} {ID:bb-whole Recipient:a@b}]"
	short := make([]struct{ ID, Recipient string }, len(filters))
	for i, f := range filters {
		short[i].ID, short[i].Recipient = f.ID, f.Recipient
	}
	if got := fmt.Sprintf("%+v", short); got != want || err != nil {
		t.Errorf("got %s, %v, want %s", got, err, want)
	}
}

// oneMail has a mail for each beginning.
type oneMail struct{ admin.Admin }

func (oneMail) Get(_ context.Context, id string) (admin.Mail, error) {
	return admin.Mail{Envelope: admin.Envelope{ID: id + "-whole"}}, nil
}
