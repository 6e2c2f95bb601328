package deliver

import (
	"strings"
	"testing"
	"time"

	"github.com/smtp2rest/smtp2rest/relay"
	"github.com/smtp2rest/smtp2rest/relay/suppress"
)

// TestTheBounceOfARedirectedMailIsRedirected: nothing reaches anybody else, and what the
// API says of the one address is not learnt of the recipient.
func TestTheBounceOfARedirectedMailIsRedirected(t *testing.T) {
	for _, dev := range []string{"invalid@example.net", "suppressed@example.net"} {
		inBubble(t, plan{}, func(r *rig) {
			r.suppressed.Learn("eve@example.net", suppress.HardBounce, "", time.Now())
			m := message(shop, "staged", "bob@example.net", "eve@example.net")
			m.Client.Redirect = dev
			if err := r.engine.Keep(r.t.Context(), relay.Remainder{Message: m, Outcomes: untried(2), Domain: "sandbox.example"}); err != nil {
				r.t.Fatal(err)
			}
			r.pass(time.Hour)
			var subjects []string
			for _, c := range r.calls("") {
				subjects = append(subjects, c.Subject)
				if c.To != dev {
					r.t.Errorf("%s got %q", c.To, c.Subject)
				}
			}
			all := strings.Join(subjects, "\n")
			for _, want := range []string{"[for bob@example.net] staged", "[for eve@example.net] staged", "[for " + shop + "] Your mail could not be delivered"} {
				if !strings.Contains(all, want) {
					r.t.Errorf("no %q in\n%s", want, all)
				}
			}
			if e, known := r.suppressed.Lookup("bob@example.net", time.Now()); known {
				r.t.Errorf("learnt %+v", e)
			}
		})
	}
}
