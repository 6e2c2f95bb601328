package app

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/smtp2rest/smtp2rest/relay/provider/nexuspromail/sandbox"
	"github.com/smtp2rest/smtp2rest/relay/warm"
	"github.com/smtp2rest/smtp2rest/smtpd"
)

// Each account has the day's number of a domain for itself, after a restart as well, and
// a plan of an account alone comes before the one of all.
func TestWarmingIsAnAccountsOwn(t *testing.T) {
	keys := t.TempDir()
	writeKeys(t, keys, "second", "third")
	settings := strings.ReplaceAll(`
[[account]]
name = "second"
key_file = "K/second"
[[account]]
name = "third"
key_file = "K/third"
[[warming]]
domain = "sandbox.example"
begin = "2000-01-01"
table = [2]
[[warming]]
domain = "sandbox.example"
begin = "2000-01-01"
table = [3]
account = "third"
`, "K/", keys+"/")
	inVirtualWorld(t, settings, map[string]sandbox.Options{"second": {Key: "key-of-second"}, "third": {Key: "key-of-third"}}, func(w *world) {
		n := 0
		hand := func(account string) string {
			n++
			return w.handBy(smtpd.Client{Account: account}, "x@sandbox.example", "x@sandbox.example", fmt.Sprintf("to%d@example.net", n))
		}
		sent := func() (all [3]int) {
			for i, box := range []*sandbox.Server{w.box, w.box.Account("second"), w.box.Account("third")} {
				all[i] = box.Stats().Accepted
			}
			return all
		}
		for range 4 {
			for _, account := range []string{"default", "second", "third"} {
				if got := hand(account); !strings.HasPrefix(got, "250 ") {
					t.Fatal(got)
				}
			}
		}
		w.pass(time.Minute)
		if got, want := sent(), [3]int{2, 2, 3}; got != want {
			t.Fatalf("%v mails went out, want %v", got, want)
		}
		w.stop(time.Minute)
		w.boot()
		w.pass(time.Minute)
		hand("second")
		hand("third")
		w.pass(time.Minute)
		if got, want := sent(), [3]int{2, 2, 3}; got != want {
			t.Errorf("after a restart %v mails went out, want %v", got, want)
		}
		w.pass(24 * time.Hour)
		if got, want := sent(), [3]int{4, 4, 5}; got != want { // of the third, two waited
			t.Errorf("a day later %v mails went out, want %v", got, want)
		}
		less := *w.conf
		less.Accounts = less.Accounts[:1] // third is gone
		w.stop(time.Minute)
		w.conf = &less
		w.boot()
		accounts := func() []string {
			marks, err := w.now.kept.queue.Marks(context.Background(), warm.Prefix)
			w.must(err)
			of := map[string]bool{}
			for name := range marks {
				of[warm.AccountOf(name)] = true
			}
			return slices.Sorted(maps.Keys(of))
		}
		if got := accounts(); !slices.Equal(got, []string{"", "second", "third"}) {
			t.Errorf("counts of the accounts %q on the day after an account is gone", got)
		}
		w.pass(72 * time.Hour)
		w.stop(time.Minute)
		w.boot()
		if got := accounts(); !slices.Equal(got, []string{"", "second"}) {
			t.Errorf("counts of the accounts %q days after an account is gone", got)
		}
	})
}
