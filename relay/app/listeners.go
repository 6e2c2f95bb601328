package app

import (
	"github.com/smtp2rest/smtp2rest/relay/config"
	"github.com/smtp2rest/smtp2rest/smtpd"
)

// smtpSettings are smtpd's Options as far as a configuration has them.
func smtpSettings(c *config.Config) smtpd.Options {
	return smtpd.Options{
		Hostname:      c.Hostname,
		Listeners:     c.Listeners,
		Limits:        c.Limits.Limits,
		Rules:         c.Rules,
		QualifyDomain: c.Addresses.QualifyDomain,
	}
}
