package mail

import (
	"strings"
)

// RefusalReason is a closed set, used as a metric label.
type RefusalReason int

const (
	Unparsable    RefusalReason = iota // nothing in it can be read
	HasAttachment                      // policy: attachments are refused
	SenderDomain                       // policy: From is outside the verified domains
	Encrypted                          // only its recipient could read it
	TooCostly                          // made to take many times its size
)

var reasonNames = [...]string{"unparsable", "attachment", "sender_domain", "encrypted", "too_costly"}

// RefusalReasons lists every reason, for tables that must be complete.
func RefusalReasons() []RefusalReason {
	return []RefusalReason{Unparsable, HasAttachment, SenderDomain, Encrypted, TooCostly}
}

// String is the reason's name in logs and metrics.
func (r RefusalReason) String() string {
	if r < 0 || int(r) >= len(reasonNames) {
		return "unknown"
	}
	return reasonNames[r]
}

// Refusal is why a mail cannot be sent as it is. Trying again cannot help.
type Refusal struct {
	Reason RefusalReason
	Detail string // one line of printable ASCII, fit for an SMTP reply
	Read   *Mail  // what was read all the same, for people to look at and never to be sent; nil for Unparsable
}

// Error has no word of the mail, so that it can be logged.
func (r *Refusal) Error() string { return "mail: " + r.Reason.String() + ": " + r.Logged() }

// Logged is Detail without the names of files.
func (r *Refusal) Logged() string {
	if r.Reason == HasAttachment {
		before, _, _ := strings.Cut(r.Detail, ": ")
		return before
	}
	return r.Detail
}

// maxDetail keeps a reply within RFC 5321 section 4.5.3.1.5's 512 octets.
const maxDetail = 400

func refuse(reason RefusalReason, detail string) *Refusal {
	printable := strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' {
			return '?'
		}
		return r
	}, detail)
	if len(printable) > maxDetail {
		printable = printable[:maxDetail-3] + "..."
	}
	return &Refusal{Reason: reason, Detail: printable}
}
