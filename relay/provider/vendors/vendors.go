// Package vendors lists the providers that the setting api.provider can name. It is the
// only package that knows them: a vendor is added in its line here.
package vendors

import (
	"github.com/smtp2rest/smtp2rest/relay/provider"
	"github.com/smtp2rest/smtp2rest/relay/provider/nexuspromail"
	"github.com/smtp2rest/smtp2rest/relay/provider/nexuspromail/sandbox"
)

// All returns the vendors. The first one is the default.
func All() []provider.Vendor {
	return []provider.Vendor{
		nexuspromail.Vendor(sandbox.Play),
	}
}
