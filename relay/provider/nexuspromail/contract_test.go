package nexuspromail

import (
	"os"
	"testing"

	"github.com/smtp2rest/smtp2rest/relay/provider"
	"github.com/smtp2rest/smtp2rest/relay/provider/providertest"
)

// TestContract: what is in testdata/recorded is what the vendor's guides and
// pages show, and what was seen of such APIs.
func TestContract(t *testing.T) {
	providertest.Run(t, providertest.Vendor{
		Format: Format{},
		Events: Events{},
		Client: func(t *testing.T, url, key string) provider.Client {
			c, err := New(Options{URL: url, Path: DefaultPath, Key: key})
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
