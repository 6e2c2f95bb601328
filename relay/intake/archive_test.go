package intake

import (
	"errors"
	"testing"

	"github.com/smtp2rest/smtp2rest/relay/queue"
)

// TestCopyForTheArchive: a mail that is accepted has one, one that is refused has none,
// and whatever the queue says of the copy, the reply stays the same.
func TestCopyForTheArchive(t *testing.T) {
	for _, tt := range []struct {
		name, to, want string
		redirect       string
		full           error
		copies         int
	}{
		{name: "sent at once", to: "bob@example.net", want: `250 2\.0\.0 accepted .*`, copies: 1},
		{name: "queued", to: "down@example.net", want: keptIt, copies: 1},
		{name: "refused", to: "suppressed@example.net", want: `550 5\.7\.1 suppressed: .*`},
		{name: "a full queue", to: "bob@example.net", want: `250 2\.0\.0 accepted .*`, full: errors.New("full")},
		{name: "redirected", to: "bob@example.net", redirect: "dev@example.net", want: `250 2\.0\.0 accepted .*`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			q := &fakeQueue{err: tt.full}
			r := newRig(t, plan{queue: q})
			set := *r.set.Load()
			set.Archive, set.Mapping.Redirect = "archive@example.net", tt.redirect
			r.set.Store(&set)
			compare(t, r.sendMail(tt.to), tt.want)
			copies := 0
			for _, rest := range q.rest {
				if m := rest.Message; m.Client.CopyOf != "" {
					copies++
					if m.ID != queue.CopyID(m.Client.CopyOf) || len(m.Recipients) != 1 || m.Recipients[0] != "archive@example.net" || m.Client.CopyFor != tt.to || string(m.Raw) != aMail {
						t.Errorf("the copy is %+v", m)
					}
				}
			}
			if copies != tt.copies {
				t.Errorf("%d copies, want %d", copies, tt.copies)
			}
			missed, _ := r.opt.Copies.Missed()
			if missed != map[bool]int64{true: 1}[tt.full != nil] {
				t.Errorf("%d copies are missing", missed)
			}
			for _, c := range r.box.Calls() {
				if c.To == "archive@example.net" {
					t.Error("the copy was sent while the client waited")
				}
			}
		})
	}
}
