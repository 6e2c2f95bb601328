package app

import (
	"github.com/smtp2rest/smtp2rest/relay"
	"github.com/smtp2rest/smtp2rest/relay/config"
	"github.com/smtp2rest/smtp2rest/relay/mail"
)

// Mapping is how a configuration wants mail mapped; 'smtp2rest explain' uses
// it as well, so that it shows what the daemon would do.
func Mapping(c *config.Config) mail.Options {
	return mail.Options{
		Default:       defaultSender(c),
		Defaults:      defaultSenders(c.Users),
		Domains:       c.Sender.Domains,
		ForeignSender: senderPolicies()[c.Sender.Foreign],
		Attachments:   attachmentPolicies()[c.Mail.Attachments],
		AttachmentFields: mail.AttachmentFields{
			List:        c.Mail.Fields.Array,
			Filename:    orDash(c.Mail.Fields.Filename),
			Content:     c.Mail.Fields.Content,
			ContentType: orDash(c.Mail.Fields.ContentType),
			ContentID:   orDash(c.Mail.Fields.ContentID),
		},
		HeaderField: c.Mail.HeaderField,
	}
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

// orDash says "no such field" as payload does.
func orDash(field string) string {
	if field == "" {
		return "-"
	}
	return field
}

func senderPolicies() map[config.Foreign]mail.SenderPolicy {
	return map[config.Foreign]mail.SenderPolicy{
		config.Rewrite:       mail.Rewrite,
		config.RefuseForeign: mail.Refuse,
	}
}

func attachmentPolicies() map[config.Attachments]mail.AttachmentPolicy {
	return map[config.Attachments]mail.AttachmentPolicy{
		config.RefuseAttachments: mail.RefuseAttachments,
		config.StripAttachments:  mail.StripAttachments,
		config.SendAttachments:   mail.SendAttachments,
	}
}
