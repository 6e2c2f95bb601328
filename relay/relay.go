// Package relay holds the words of the domain that its subpackages share: an
// address, a message and its envelope, and the outcome of one attempt to send
// it. It has no behaviour beyond naming things and imports nothing of ours.
//
// The packages below it are the promises: relay/mail reads mail as an API takes it,
// relay/provider sends it, relay/pace holds it to the account's rate, relay/intake
// answers the SMTP client, and relay/app wires them.
package relay

import "time"

// Address is a mailbox.
type Address struct{ Email, Name string }

// Message is one mail as an SMTP client handed it over. Raw is never changed:
// what the API gets is derived from it at each attempt, so that a corrected
// mapping reaches mail that was accepted before the correction.
type Message struct {
	ID         string // from NewID; the client sees it in the reply
	From       string // envelope sender; "" is the null sender of a bounce
	Recipients []string
	Raw        []byte
	ReceivedAt time.Time
	Client     Client
	// Account sends the mail. It was chosen when the mail came, and only an operator
	// changes it. "" is the default account.
	Account string

	// Aliases has, for each recipient that stands in for an alias, the address
	// that the client named. Only the reply needs it; the queue does not keep it.
	Aliases map[string]string
}

// DefaultAccount is how people call the default account, whose name in Message is "".
const DefaultAccount = "default"

// AccountName is how people call an account.
func AccountName(account string) string {
	if account == "" {
		return DefaultAccount
	}
	return account
}

// Named is how the client named a recipient.
func (m *Message) Named(recipient string) string {
	if alias, ok := m.Aliases[recipient]; ok {
		return alias
	}
	return recipient
}

// Client is who handed a message over, for the log and for rules.
type Client struct {
	Addr     string `json:"addr,omitempty"`     // IP address and port, or the path of a unix socket
	Helo     string `json:"helo,omitempty"`     // as the client called itself; not to be trusted
	User     string `json:"user,omitempty"`     // who logged in; "" when nobody did
	Listener string `json:"listener,omitempty"` // the address of ours it connected to
	Session  string `json:"session,omitempty"`  // the SMTP session's id in the log
	Redirect string `json:"redirect,omitempty"` // the address that gets the mail in place of its recipients
	Fields   string `json:"fields,omitempty"`   // values of its listener for the payload; see mail.FormatValues
	CopyOf   string `json:"copy_of,omitempty"`  // the mail of which this is the copy for the archive
	CopyFor  string `json:"copy_for,omitempty"` // whom that was for, in part
	KeptBy   string `json:"kept_by,omitempty"`  // the user whose sendmail(1) kept the mail while the relay was away
}

// Remainder is a message with what came of the first try, for the queue to
// finish: to deliver to the recipients that are not settled, and to tell the
// sender of those that failed.
type Remainder struct {
	Message  *Message
	Outcomes []Outcome // in the order of Message.Recipients
	Domain   string    // of the sender that the API is given
	Urgent   bool      // passes a domain's warming
}
