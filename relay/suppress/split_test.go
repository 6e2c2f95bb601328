package suppress_test

import (
	"context"
	"testing"
	"time"

	"github.com/smtp2rest/smtp2rest/relay/suppress"
	"github.com/smtp2rest/smtp2rest/relay/suppress/suppresstest"
)

// Each account's part of a Store is a Store, whatever others have.
func TestSplit(t *testing.T) {
	for _, account := range []string{"", "shop"} {
		t.Run("account "+account, func(t *testing.T) {
			suppresstest.Run(t, func(t *testing.T) suppresstest.Backend {
				all := suppress.NewSplit(suppress.NewMemory(0))
				for _, other := range []string{"", "a", "shop", "shop-2", "z"} {
					if other == account {
						continue
					}
					entries := []suppress.Entry{{Address: "a@x.example"}, {Address: "b@x.example"}, {Address: "zz@x.example"}}
					if err := all.Of(other).Put(t.Context(), entries); err != nil {
						t.Fatal(err)
					}
				}
				return suppresstest.Backend{Store: all.Of(account), Flush: func() {}}
			})
		})
	}
}

func TestOneAccountsListSaysNothingOfAnother(t *testing.T) {
	ctx, now := context.Background(), time.Now()
	all := suppress.NewSplit(suppress.NewMemory(0))
	before := suppress.Entry{Address: "old@example.com", Reason: suppress.Operator, Source: suppress.ByOperator}
	if err := all.Of("").Put(ctx, []suppress.Entry{before}); err != nil {
		t.Fatal(err)
	}
	lists := map[string]*suppress.List{}
	for _, account := range []string{"", "shop", "news"} {
		lists[account] = suppress.New(suppress.Options{Settings: suppress.Settings{Expire: time.Hour}, Store: all.Of(account)})
		if err := lists[account].Start(ctx); err != nil {
			t.Fatal(err)
		}
		defer lists[account].Stop()
	}
	lists["shop"].Learn("ann@example.com", suppress.Provider, "", now)
	for account, want := range map[string][2]bool{"": {true, false}, "shop": {false, true}, "news": {false, false}} {
		_, old := lists[account].Lookup("old@example.com", now)
		_, ann := lists[account].Lookup("ann@example.com", now)
		if got := [2]bool{old, ann}; got != want {
			t.Errorf("account %q: suppressed are %v, want %v", account, got, want)
		}
	}
}
