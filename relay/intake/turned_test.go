package intake

import (
	"fmt"
	"testing"
	"time"

	"github.com/smtp2rest/smtp2rest/relay"
)

// TestRefusedFilesAreBounded: by user, else by address without its port; clients beyond
// the bound are counted together.
func TestRefusedFilesAreBounded(t *testing.T) {
	var in Intake
	now := time.Now()
	for range 3 {
		in.refusedFiles.count(relay.Client{Addr: "192.0.2.1:1234", User: "crm"}, now)
	}
	in.refusedFiles.count(relay.Client{Addr: "192.0.2.1:1234"}, now)
	in.refusedFiles.count(relay.Client{Addr: "192.0.2.1:1235"}, now)
	for i := range 10_000 {
		in.refusedFiles.count(relay.Client{Addr: fmt.Sprintf("[2001:db8::%x]:25", i)}, now)
	}
	got := in.RefusedFiles()
	if len(got) != mostRefused+1 || got[0].Client != "" || got[0].Mails != 10_000-mostRefused+2 || got[1] != (RefusedFiles{"crm", 3, now}) || got[2] != (RefusedFiles{"192.0.2.1", 2, now}) {
		t.Errorf("%d clients: %+v", len(got), got[:3])
	}
}
