package sqlite

import (
	"testing"
	"time"

	"github.com/smtp2rest/smtp2rest/relay"
	"github.com/smtp2rest/smtp2rest/relay/history"
	"github.com/smtp2rest/smtp2rest/relay/suppress"
)

func TestHistoryOfAnAccount(t *testing.T) {
	s := openRecords(t, t.TempDir(), Options{})
	for id, account := range map[string]string{"own1": "", "shop1": "shop", "news1": "news"} {
		m := &relay.Message{ID: id, From: "a@x.example", Recipients: []string{"b@y.example"}, ReceivedAt: time.Now(), Account: account}
		must(t, s.Write(t.Context(), history.Changes(history.NewCame(m, history.Head{}))))
	}
	for account, want := range map[string]string{relay.DefaultAccount: "own1", "shop": "shop1", "news": "news1", "none": ""} {
		found, _, err := s.Find(t.Context(), history.Query{Account: account})
		must(t, err)
		got := ""
		for _, m := range found {
			got += m.ID
		}
		if got != want {
			t.Errorf("mails of %s are %q, want %q", account, got, want)
		}
	}
}

// Whoever is to be forgotten is taken off the lists of all accounts.
func TestEraseInEveryAccount(t *testing.T) {
	s := openRecords(t, t.TempDir(), Options{})
	lists := suppress.NewSplit(s)
	for _, account := range []string{"", "shop", "news"} {
		must(t, lists.Of(account).Put(t.Context(), []suppress.Entry{
			{Address: "bob@example.net", Reason: suppress.Operator, Source: suppress.ByOperator},
			{Address: "carl@example.net", Reason: suppress.Operator, Source: suppress.ByOperator},
		}))
		_, err := lists.Of(account).Remove(t.Context(), []string{"bob@example.net"}, time.Now())
		must(t, err)
	}
	must(t, lists.Of("shop").Put(t.Context(), []suppress.Entry{{Address: "bob@example.net", Reason: suppress.Operator, Source: suppress.ByOperator}}))
	known, err := s.Erase(t.Context(), "Bob@example.net")
	must(t, err)
	left, err := s.Entries(t.Context(), suppress.Filter{})
	must(t, err)
	removals, err := s.conn.Number("SELECT count(*) FROM removals")
	must(t, err)
	if !known || len(left) != 3 || removals != 0 {
		t.Errorf("known is %t; %d entries and %d removals are left, want 3 and none", known, len(left), removals)
	}
}
