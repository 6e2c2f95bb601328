package intake

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/smtp2rest/smtp2rest/relay"
	"github.com/smtp2rest/smtp2rest/relay/suppress"
	"github.com/smtp2rest/smtp2rest/smtpd/reply"
)

type fakeAliases map[string]string

func (f fakeAliases) Expand(address string) ([]string, bool) {
	list := strings.Fields(f[address])
	return list, len(list) > 0
}

// newAliasRig has an alias root for two people. One is suppressed from the beginning,
// the other when the API is asked.
func newAliasRig(t *testing.T, more map[string]string, q Queue) *rig {
	r := newRig(t, plan{queue: q})
	table := fakeAliases{"root@sandbox.example": "ops@example.net zoe@example.net", "half@x": "bob@example.net suppressed@example.net"}
	for name, list := range more {
		table[name] = list
	}
	r.opt.Aliases = table
	return r
}

func (r *rig) recipients() []string {
	var to []string
	for _, c := range r.box.Calls() {
		to = append(to, c.To)
	}
	return slices.Sorted(slices.Values(to))
}

func TestAnAliasIsItsPeople(t *testing.T) {
	r := newAliasRig(t, nil, nil)
	compare(t, r.sendMail("root@sandbox.example", "bob@example.net", "zoe@example.net"), `250 2\.0\.0 accepted .*`)
	if got := r.recipients(); !slices.Equal(got, []string{"bob@example.net", "ops@example.net", "zoe@example.net"}) {
		t.Errorf("the API was asked to send to %v", got)
	}
}

// Replies name the alias that the client named.
func TestRepliesNameTheAlias(t *testing.T) {
	r := newAliasRig(t, map[string]string{"all@x": "suppressed@example.net suppressed+2@example.net"}, nil)
	compare(t, r.sendMail("half@x"), `250 2\.0\.0 accepted `+queueID+` except <half@x>`)
	compare(t, r.sendMail("all@x"), `550 5\.7\.1 suppressed: <all@x>`)
	if n := r.box.Stats().ByStatus[422]; n != 2 { // suppressed@ is known from the first mail
		t.Errorf("the API said %d times that somebody is suppressed", n)
	}
	// Now both are known to be suppressed, and RCPT refuses.
	compare(t, r.sendMail("all@x"), `550 5\.7\.1 <all@x> suppressed: on the provider's suppression list since .*`)
	// The others of an alias still get their mail.
	calls := len(r.box.Calls())
	compare(t, r.sendMail("half@x"), `250 2\.0\.0 accepted `+queueID+` except <half@x>`)
	if n := len(r.box.Calls()) - calls; n != 2 { // bob, and the bounce
		t.Errorf("%d calls", n)
	}
}

func TestOneWhoIsNamedBothWaysIsNamedThemselves(t *testing.T) {
	r := newAliasRig(t, nil, nil)
	compare(t, r.sendMail("half@x", "suppressed@example.net"), `250 2\.0\.0 accepted `+queueID+` except <suppressed@example\.net>`)
}

func TestAnAliasInTheQueue(t *testing.T) {
	q := &fakeQueue{}
	r := newAliasRig(t, map[string]string{"root@x": "down@example.net ops@example.net"}, q)
	compare(t, r.sendMail("root@x"), keptIt)
	if q.kept() != 1 || !slices.Equal(q.rest[0].Message.Recipients, []string{"down@example.net", "ops@example.net"}) || q.rest[0].Outcomes[1].Kind != relay.Accepted {
		t.Errorf("the queue keeps %+v", q.rest)
	}
}

// The number of a message's recipients is bounded after aliases are expanded.
func TestAliasesAreBounded(t *testing.T) {
	var list []string
	for i := range 600 {
		list = append(list, fmt.Sprintf("u%d@example.net", i))
	}
	r := newAliasRig(t, map[string]string{"a@x": strings.Join(list, " "), "b@x": strings.Join(list, " ")}, nil)
	env := envelope("shop@sandbox.example", "a@x")
	compare(t, reply.From(r.Recipient(t.Context(), env, "b@x")), `452 4\.5\.3 too many recipients`)
	if err := r.Recipient(t.Context(), env, "bob@example.net"); err != nil {
		t.Error(err)
	}
}

func TestASuppressedAliasIsLogged(t *testing.T) {
	r := newAliasRig(t, nil, nil)
	r.suppressions.Learn("ops@example.net", suppress.HardBounce, "", time.Now())
	r.suppressions.Learn("zoe@example.net", suppress.HardBounce, "", time.Now())
	compare(t, r.sendMail("root@sandbox.example"), `550 5\.1\.1 <root@sandbox\.example> suppressed: .*`)
	if l := r.lines("recipient"); len(l) != 2 || l[0]["to"] != "ops@example.net" || l[0]["named"] != "root@sandbox.example" {
		t.Errorf("the log says %v", l)
	}
}
