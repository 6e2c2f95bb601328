package smtpd

import "github.com/smtp2rest/smtp2rest/smtpd/policy"

// rule is what of the configuration refuses somebody, by the name of its
// setting.
type rule string

// The rules about clients.
const (
	ruleNetworks    rule = "listener.networks"
	ruleRequireAuth rule = "listener.require_auth"
	ruleTLS         rule = "listener.auth_without_tls"
)

// addressRules are those about addresses: of each place of a session's chain,
// by whom they are about.
func addressRules() [][]struct{ allow, deny rule } {
	return [][]struct{ allow, deny rule }{
		{
			policy.Sender:    {"rules.allow_senders", "rules.deny_senders"},
			policy.Author:    {"rules.allow_from", "rules.deny_from"},
			policy.Recipient: {"rules.allow_recipients", "rules.deny_recipients"},
		}, {
			policy.Sender:    {"listener.allow_senders", "listener.deny_senders"},
			policy.Author:    {"listener.allow_from", "listener.deny_from"},
			policy.Recipient: {"listener.allow_recipients", "listener.deny_recipients"},
		}, {
			policy.Sender:    {"user.senders", "user.deny_senders"},
			policy.Author:    {"user.senders", "user.deny_senders"},
			policy.Recipient: {"user.allow_recipients", "user.deny_recipients"},
		},
	}
}

// rules are all of them.
func rules() []rule {
	list := []rule{ruleNetworks, ruleRequireAuth, ruleTLS}
	for _, place := range addressRules() {
		for _, r := range place {
			list = append(list, r.allow, r.deny)
		}
	}
	return list
}

// permits holds an address to the rules, and counts which of them refuses it.
func (m *metrics) permits(chain policy.Chain, part policy.Part, address string) bool {
	place, allow, broken := chain.Broken(part, address)
	if !broken {
		return true
	}
	r := addressRules()[place][part].deny
	if allow {
		r = addressRules()[place][part].allow
	}
	m.refusedBy(r)
	return false
}

func (m *metrics) refusedBy(r rule) { m.rules.WithLabelValues(string(r)).Inc() }
