package intake

import (
	"github.com/smtp2rest/smtp2rest/relay"
	"github.com/smtp2rest/smtp2rest/relay/suppress"
	"github.com/smtp2rest/smtp2rest/smtpd"
)

// maxExpanded bounds the recipients of one message after aliases are expanded.
// Each recipient costs one API call.
const maxExpanded = 1000

// Aliases expand recipient addresses.
type Aliases interface {
	// Expand returns the addresses that an alias stands for, at least one. It
	// returns false if the address is not an alias.
	Expand(address string) ([]string, bool)
}

// NoAliases expands nothing.
type NoAliases struct{}

// Expand returns false.
func (NoAliases) Expand(string) ([]string, bool) { return nil, false }

// expanded returns the addresses that rcpt stands for: itself, if it is no alias.
func (in *Intake) expanded(rcpt string) []string {
	if list, ok := in.opt.Aliases.Expand(rcpt); ok {
		return list
	}
	return []string{rcpt}
}

// tooMany reports whether adding the addresses in further would take the
// message over maxExpanded.
func (in *Intake) tooMany(env *smtpd.Envelope, further []string) bool {
	n := len(further)
	if n == 1 {
		return false // a plain recipient is smtpd's to count
	}
	for _, rcpt := range env.Recipients {
		n += len(in.expanded(rcpt))
	}
	return n > maxExpanded
}

// namedRecipient is a recipient as the client named it in RCPT.
type namedRecipient struct {
	rcpt  string
	to    []string // the addresses it stands for; only rcpt itself if it is no alias
	alias bool
}

// expandAll expands every recipient of a message. It asks once for each, because
// the aliases may change at any time.
func (in *Intake) expandAll(recipients []string) []namedRecipient {
	list := make([]namedRecipient, len(recipients))
	for i, rcpt := range recipients {
		list[i] = namedRecipient{rcpt: rcpt, to: []string{rcpt}}
		if to, ok := in.opt.Aliases.Expand(rcpt); ok {
			list[i].to, list[i].alias = to, true
		}
	}
	return list
}

// resolve returns the addresses that the message goes to, each once. For an
// address that the client named only by an alias, aliases has that alias.
func resolve(list []namedRecipient) (recipients []string, aliases map[string]string) {
	own := map[string]bool{}
	var standIns []string
	via := map[string]string{}
	for _, n := range list {
		if !n.alias {
			own[suppress.Normalise(n.rcpt)] = true
			recipients = append(recipients, n.rcpt)
			continue
		}
		for _, to := range n.to {
			standIns = append(standIns, to)
			if via[to] == "" {
				via[to] = n.rcpt
			}
		}
	}
	recipients = unique(append(recipients, standIns...))
	for _, to := range recipients {
		if alias := via[to]; alias != "" && !own[suppress.Normalise(to)] {
			if aliases == nil {
				aliases = map[string]string{}
			}
			aliases[to] = alias
		}
	}
	return recipients, aliases
}

// splitByName splits the result of a message by the recipients that the client
// named, in their order.
func splitByName(r relay.Remainder, list []namedRecipient) []relay.Remainder {
	parts := make([]relay.Remainder, len(list))
	for i, n := range list {
		is := map[string]bool{}
		for _, to := range n.to {
			is[suppress.Normalise(to)] = true
		}
		part := selectRecipients(r, func(to string) bool { return is[suppress.Normalise(to)] })
		part.Message.Aliases = nil
		if n.alias {
			part.Message.Aliases = map[string]string{}
			for _, to := range part.Message.Recipients {
				part.Message.Aliases[to] = n.rcpt
			}
		}
		parts[i] = part
	}
	return parts
}

// unique drops a recipient that was named twice. It gets one copy, as from every
// mail system.
func unique(recipients []string) []string {
	seen := make(map[string]bool, len(recipients))
	var kept []string
	for _, rcpt := range recipients {
		if key := suppress.Normalise(rcpt); !seen[key] {
			seen[key] = true
			kept = append(kept, rcpt)
		}
	}
	return kept
}

// selectRecipients returns r with only the recipients for which keep is true.
func selectRecipients(r relay.Remainder, keep func(to string) bool) relay.Remainder {
	m := *r.Message
	m.Recipients = nil
	var outcomes []relay.Outcome
	for i, to := range r.Message.Recipients {
		if keep(to) {
			m.Recipients, outcomes = append(m.Recipients, to), append(outcomes, r.Outcomes[i])
		}
	}
	r.Message, r.Outcomes = &m, outcomes
	return r
}
