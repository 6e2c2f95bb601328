package nexuspromail

import (
	"os"
	"testing"

	"github.com/smtp2rest/smtp2rest/internal/settings"
	"github.com/smtp2rest/smtp2rest/relay/provider"
	"github.com/smtp2rest/smtp2rest/relay/provider/httpcall"
	"github.com/smtp2rest/smtp2rest/relay/provider/providertest"
)

// TestContract uses testdata/recorded, which has what the vendor's guides and pages
// show, and what was seen of such APIs.
func TestContract(t *testing.T) {
	providertest.Run(t, providertest.Vendor{
		Format: settings.Defaults[Format](),
		Events: Events{},
		Client: func(t *testing.T, url, key string) provider.Client {
			c, err := New(Options{Endpoint: Endpoint{URL: url, Path: settings.Defaults[Endpoint]().Path}, Timeouts: settings.Defaults[httpcall.Timeouts](), Key: key})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(c.Close)
			return c
		},
		Registrar: func(url, key string) provider.Registrar { return Registrar{URL: url, Key: key} },
		Recorded:  os.DirFS("testdata/recorded"),
	})
}
