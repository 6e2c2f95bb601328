package nexuspromail

import (
	"os"
	"testing"

	"github.com/smtp2rest/smtp2rest/relay/provider/providertest"
)

// TestContract uses testdata/recorded, which has what the vendor's guides and pages
// show, and what was seen of such APIs.
func TestContract(t *testing.T) {
	providertest.Run(t, Vendor(nil), os.DirFS("testdata/recorded"))
}
