package intake

import (
	"github.com/smtp2rest/smtp2rest/relay/suppress"
	"github.com/smtp2rest/smtp2rest/smtpd"
)

// maxExpanded bounds the recipients of one message once aliases are resolved:
// each is a call of the API.
const maxExpanded = 1000

// Aliases tell whom a recipient stands for.
type Aliases interface {
	// Expand returns at least one address, or false when there is no alias.
	Expand(address string) ([]string, bool)
}

// NoAliases lets everybody stand for themselves.
type NoAliases struct{}

// Expand finds nothing.
func (NoAliases) Expand(string) ([]string, bool) { return nil, false }

// expanded is whom one recipient stands for.
func (in *Intake) expanded(rcpt string) []string {
	if list, ok := in.opt.Aliases.Expand(rcpt); ok {
		return list
	}
	return []string{rcpt}
}

// tooMany reports whether a further recipient makes too many once aliases are
// resolved.
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

// named is one recipient as the client named it, and whom it stands for.
type named struct {
	rcpt  string
	to    []string // at least one; rcpt itself where there is no alias
	alias bool
}

// lookUp asks once for each recipient of a message: the aliases may change at
// any time.
func (in *Intake) lookUp(recipients []string) []named {
	list := make([]named, len(recipients))
	for i, rcpt := range recipients {
		list[i] = named{rcpt: rcpt, to: []string{rcpt}}
		if to, ok := in.opt.Aliases.Expand(rcpt); ok {
			list[i].to, list[i].alias = to, true
		}
	}
	return list
}

// resolve is a message's recipients with aliases resolved, each once, and for
// those whom the client did not name itself, the alias that it named.
func resolve(list []named) (recipients []string, aliases map[string]string) {
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
