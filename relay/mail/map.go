// Package mail reads a mail as a provider's API takes it: MIME bytes in; subject,
// html, text, from, reply-to and files out. It is pure: no network, no clock, no
// disk, so that a queued mail can be mapped again at any time. How that is written
// for an API is for the provider's package.
//
// What an API cannot carry is refused or left out by policy, and whatever was
// left out, changed or repaired is an Omission. Nothing is silent.
//
// relay/mail/mime reads the mail's structure; this package is the policy on
// it. relay/intake maps a mail once while its client still listens, and turns
// a Refusal into a reply; relay/provider
// writes and sends what comes of it.
package mail

import (
	"github.com/smtp2rest/smtp2rest/relay"
	"github.com/smtp2rest/smtp2rest/relay/mail/mime"
)

// SenderPolicy says what becomes of a From outside the verified domains.
type SenderPolicy int

const (
	Rewrite SenderPolicy = iota // the default sender's address, the author's name
	Refuse
)

// AttachmentPolicy says what becomes of attachments and inline images, which
// the documented API does not carry.
type AttachmentPolicy int

const (
	RefuseAttachments AttachmentPolicy = iota
	StripAttachments                   // leave them out and say so at the end of the bodies
	SendAttachments                    // with the mail
)

// Options are the account's rules for a mail.
type Options struct {
	Default       relay.Address            // the account's default sender
	Defaults      map[string]relay.Address // of users who have their own, by name
	Domains       []string                 // verified sender domains; empty: only the default sender's own
	ForeignSender SenderPolicy
	Attachments   AttachmentPolicy
	PassHeaders   bool // those that have no field of their own; else they are left out
	Limits        mime.Limits

	// Explain, if set, hears of each omission, a bounded number of times, in
	// words that may be the mail's own: for whoever holds the mail, and no log.
	Explain func(kind OmissionKind, words string)
}

// For is how the mail of a user is mapped; "" is nobody's.
func (o Options) For(user string) Options {
	if own, ok := o.Defaults[user]; ok {
		o.Default = own
	}
	return o
}

// Map maps a mail, in no more memory than Cost says. The envelope's sender names the author of a mail that does
// not. The only error is a *Refusal. The Mail refers to raw, which must not
// change while it is in use.
func Map(raw []byte, envelopeFrom string, o Options) (*Mail, error) {
	root := mime.Parse(raw, o.Limits)
	c := newComposer(&o, root, costOf(raw, root))
	if refusal := c.run(root, envelopeFrom); refusal != nil {
		return nil, refusal
	}
	return c.mail, nil
}

// run maps the whole mail even when it is refused, so that people can be shown
// what was in it.
func (c *composer) run(root *mime.Part, envelopeFrom string) *Refusal {
	if !readable(root) {
		return refuse(Unparsable, "this is no mail: it has no header, and its body is no text")
	}
	refusal := c.compose(root)
	if r := c.sender(root.Header, envelopeFrom); refusal == nil {
		refusal = r
	}
	c.headers(root.Header)
	if refusal == nil && c.memory < 0 {
		refusal = refuse(TooCostly, "the mail is made to take many times its size to process")
	}
	if refusal != nil {
		refusal.Read = c.mail
	}
	return refusal
}

// bodyCharset is the first charset that a part declares: a program that writes
// raw 8-bit headers writes them in its body's charset.
func bodyCharset(p *mime.Part) string {
	if c := p.Param("charset"); c != "" || len(p.Parts) == 0 {
		return c
	}
	return bodyCharset(p.Parts[0])
}
