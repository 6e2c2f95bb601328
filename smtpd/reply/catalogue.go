package reply

import (
	"strings"
	"time"
)

// Accepted: the API took the mail for every recipient while the client
// waited. Each recipient has a message id of its own.
func Accepted(id string, messageIDs ...string) *Reply {
	return newReply(250, 0, 0, "accepted %s %s", id, strings.Join(messageIDs, " "))
}

// AcceptedExcept: some recipients were accepted, and the others were refused for good;
// the sender gets a bounce for those.
func AcceptedExcept(id string, refused []string) *Reply {
	return newReply(250, 0, 0, "accepted %s except %s", id, angle(refused))
}

// Ok: MAIL or RCPT was accepted. Nothing is known of the mail yet.
func Ok(command string) *Reply {
	if command == "RCPT" {
		return newReply(250, 1, 5, "recipient ok")
	}
	return newReply(250, 1, 0, "sender ok")
}

// Queued: the mail is stored durably and will be delivered later.
func Queued(id string) *Reply { return newReply(250, 0, 0, "queued %s", id) }

// Suppression is why a recipient cannot be sent to.
type Suppression struct {
	Address    string
	Reason     string // in words: "hard bounce", "complaint", …
	HardBounce bool
	Since      time.Time // zero when not known
}

// Suppressed: the recipient is known to be suppressed. A hard bounce says that
// the mailbox does not exist (5.1.1), everything else is policy (5.7.1).
func Suppressed(s Suppression) *Reply {
	if s.HardBounce {
		return newReply(550, 1, 1, "<%s> suppressed: %s%s", s.Address, s.Reason, on(" on ", s.Since))
	}
	return newReply(550, 7, 1, "<%s> suppressed: %s%s", s.Address, s.Reason, on(" since ", s.Since))
}

// AllSuppressed: the API says that every recipient of a mail is suppressed.
func AllSuppressed(list []Suppression) *Reply {
	addrs, hard := make([]string, len(list)), true
	for i, s := range list {
		addrs[i] = s.Address
		hard = hard && s.HardBounce
	}
	if hard {
		return newReply(550, 1, 1, "suppressed: %s", angle(addrs))
	}
	return newReply(550, 7, 1, "suppressed: %s", angle(addrs))
}

// RefusedByAPI: the API refuses the payload; detail is its own message.
func RefusedByAPI(detail string) *Reply {
	if detail == "" {
		detail = "no reason given"
	}
	return newReply(554, 6, 0, "refused by the API: %s", detail)
}

// TooLarge: larger than our limit, or than the API takes.
func TooLarge() *Reply { return newReply(552, 3, 4, "message too large") }

// HeaderTooLarge: more header than any mail needs.
func HeaderTooLarge() *Reply { return newReply(552, 3, 4, "message header too large") }

// NotConfigured: the API refuses our key and there is no queue to keep the
// mail in. It is the operator's fault and must not bounce mail.
func NotConfigured() *Reply {
	return newReply(451, 3, 5, "the relay is not configured correctly and its operator must fix it; try again later")
}

// RateLimited: the account's rate is used up and there is no queue.
func RateLimited(wait time.Duration) *Reply {
	seconds := int((wait + time.Second - 1) / time.Second)
	return newReply(451, 3, 2, "try again in %d s", max(seconds, 1))
}

// APIUnavailable: the API is down, is slow or gives no proper answer, and there is no
// queue.
func APIUnavailable() *Reply {
	return newReply(451, 4, 2, "the mail API does not answer, try again later")
}

// CannotCarry: the mail has a part that the payload cannot carry. The text behind a
// colon names it, for the client alone: Logged removes it.
func CannotCarry(what string) *Reply { return newReply(554, 6, 1, "%s", what) }

// Unparsable: the mail is broken beyond repair.
func Unparsable(why string) *Reply { return newReply(554, 6, 0, "%s", why) }

// SenderDomainRefused: From is outside the verified domains.
func SenderDomainRefused(why string) *Reply { return newReply(550, 7, 1, "%s", why) }

// FromNotAllowed: a rule forbids the author that the mail itself names.
func FromNotAllowed(from string) *Reply {
	return newReply(550, 7, 1, "From <%s> is not allowed here", from)
}

// RecipientNotAllowed: a rule forbids the recipient.
func RecipientNotAllowed(rcpt string) *Reply {
	return newReply(550, 7, 1, "<%s> is not allowed as a recipient here", rcpt)
}

// SenderNotAllowed: a rule forbids the sender of the envelope.
func SenderNotAllowed(from string) *Reply {
	return newReply(553, 7, 1, "<%s> is not allowed as a sender here", from)
}

// AuthRequired: the client has to log in first.
func AuthRequired() *Reply { return newReply(530, 7, 0, "authentication required") }

// RelayDenied: no setting could ever let this client send.
func RelayDenied() *Reply { return newReply(554, 7, 1, "relaying denied for this address") }

// WrongPassword: the password or the user is wrong; the client must not learn which.
func WrongPassword() *Reply { return newReply(535, 7, 8, "authentication failed") }

// TooManyFailures: passwords are being guessed.
func TooManyFailures() *Reply { return newReply(421, 7, 0, "too many failed attempts") }

// AuthNeedsTLS: a password may not travel in the clear here.
func AuthNeedsTLS() *Reply {
	return newReply(538, 7, 11, "encryption required for authentication")
}

// BadAddress: the address could not be used anywhere, whatever the policy.
func BadAddress(command string) *Reply {
	subject := map[string]int{"MAIL": 7, "RCPT": 3}[command] // RFC 3463: 1.7 bad sender, 1.3 bad destination syntax
	return newReply(553, 1, subject, "bad address syntax")
}

// TooManyRecipients: the rest may go in a next transaction (RFC 5321 section
// 4.5.3.1.10).
func TooManyRecipients() *Reply { return newReply(452, 5, 3, "too many recipients") }

// StorageFull: queue full, disk full or disk error.
func StorageFull() *Reply { return newReply(452, 3, 1, "out of storage, try again later") }

// QueueUnreachable: the queue is on another machine, and there is no way to it.
func QueueUnreachable() *Reply {
	return newReply(451, 3, 0, "the queue cannot be reached, try again later")
}

// MemorySpent: the budget for mail in flight is used up.
func MemorySpent() *Reply { return newReply(452, 3, 1, "out of memory, try again later") }

// TooManyConnections: in all, or from one address.
func TooManyConnections() *Reply { return newReply(421, 7, 0, "too many connections, try again later") }

// TooManyMessages: on one connection. The client may go on by another one.
func TooManyMessages() *Reply {
	return newReply(421, 7, 0, "too many messages in one connection, connect again")
}

// RateExceeded: too many recipients in too short a time. what is "this address",
// "this user" or "this sender".
func RateExceeded(what string, wait time.Duration) *Reply {
	seconds := int((wait + time.Second - 1) / time.Second)
	return newReply(450, 7, 1, "too many recipients from %s, try again in %d s", what, max(seconds, 1))
}

// MailLoop: the Received headers say that the mail goes in circles.
func MailLoop() *Reply { return newReply(554, 4, 6, "mail loop: too many Received headers") }

// ShuttingDown: given at the next command once the daemon stops.
func ShuttingDown() *Reply { return newReply(421, 3, 2, "shutting down, try again later") }

// Bug: a panic was caught; the connection is closed and the daemon lives on.
func Bug() *Reply { return newReply(421, 3, 0, "internal error") }

// LocalError: any error without a reply of its own.
func LocalError() *Reply { return newReply(451, 3, 0, "local error, try again later") }

// Interrupted: the client's data ended before the message did.
func Interrupted() *Reply { return newReply(451, 4, 2, "the message was cut short") }

func angle(addrs []string) string { return "<" + strings.Join(addrs, ">, <") + ">" }

func on(preposition string, t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return preposition + t.UTC().Format(time.DateOnly)
}
