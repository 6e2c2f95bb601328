package app

import (
	"fmt"
	"os"

	"github.com/smtp2rest/smtp2rest/relay"
	"github.com/smtp2rest/smtp2rest/relay/config"
	"github.com/smtp2rest/smtp2rest/relay/mail"
	"github.com/smtp2rest/smtp2rest/relay/provider"
	"github.com/smtp2rest/smtp2rest/relay/provider/nexuspromail"
)

// Mapping is how a configuration wants mail mapped; 'smtp2rest explain' uses
// it as well, so that it shows what the daemon would do.
func Mapping(c *config.Config) provider.Mapping {
	o := mail.Options{
		Default:       defaultSender(c),
		Defaults:      defaultSenders(c.Users),
		Domains:       c.Sender.Domains,
		ForeignSender: c.Sender.Foreign,
		Attachments:   c.Mail.Attachments,
		PassHeaders:   c.Mail.Fields.Headers != "",
	}
	return provider.Mapping{Options: o, Format: c.Mail.Fields}
}

// defaultSenders are those of users who have their own.
func defaultSenders(users []config.User) map[string]relay.Address {
	senders := map[string]relay.Address{}
	for _, u := range users {
		if u.From != "" {
			senders[u.Name] = relay.Address{Email: u.From, Name: u.FromName}
		}
	}
	return senders
}

// Events reads what the provider tells.
func Events() provider.Events { return nexuspromail.Events{} }

// Registrar registers endpoints with the provider.
func Registrar(c *config.Config) (provider.Registrar, error) {
	cas, err := ExtraCAs(c)
	return nexuspromail.Registrar{URL: c.API.URL + c.Webhook.RegisterPath, Key: c.API.Key.Reveal(), ExtraCAs: cas}, err
}

// ExtraCAs are the certificates that are trusted besides the system's.
func ExtraCAs(c *config.Config) ([]byte, error) {
	if c.API.CAFile == "" {
		return nil, nil
	}
	pem, err := os.ReadFile(c.API.CAFile)
	if err != nil {
		return nil, fmt.Errorf("api.ca_file: %w", err)
	}
	return pem, nil
}
