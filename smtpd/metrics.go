package smtpd

import (
	"crypto/tls"
	"slices"
	"strconv"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"github.com/smtp2rest/smtp2rest/smtpd/policy"
	"github.com/smtp2rest/smtp2rest/smtpd/reply"
)

// limit is the name of a limit in the metrics.
type limit string

// The limits. One with a setting has its name.
const (
	limitConnections      limit = "connections"
	limitAddress          limit = "connections_per_address"
	limitMessages         limit = "messages_per_connection"
	limitRecipients       limit = "recipients"
	limitSize             limit = "message_size"
	limitHeader           limit = "header_size"
	limitLine             limit = "line_length"
	limitCommand          limit = "command_length"
	limitIdle             limit = "idle_time"
	limitMessageTime      limit = "message_time"
	limitMinRate          limit = "min_rate"
	limitWrite            limit = "write_time"
	limitHandshake        limit = "handshake_time"
	limitWrongCommands    limit = "wrong_commands"
	limitWrongRecipients  limit = "wrong_recipients"
	limitIdleCommands     limit = "idle_commands"
	limitStrangerTime     limit = "stranger_time"
	limitStrangerCommands limit = "stranger_commands"
	limitAddressRate      limit = "rate_per_address"
	limitUserRate         limit = "rate_per_user"
	limitSenderRate       limit = "rate_per_sender"
	limitMemory           limit = "memory"
	limitLogins           limit = "wrong_passwords"
)

func limits() []limit {
	return []limit{
		limitConnections, limitAddress, limitMessages, limitRecipients, limitSize, limitHeader, limitLine, limitCommand,
		limitIdle, limitMessageTime, limitMinRate, limitWrite, limitHandshake, limitWrongCommands, limitWrongRecipients,
		limitIdleCommands, limitStrangerTime, limitStrangerCommands, limitAddressRate, limitUserRate, limitSenderRate, limitMemory, limitLogins,
	}
}

// metrics counts what happens on the SMTP side. The values of its labels are fixed:
// nothing that a client says becomes one.
type metrics struct {
	open       prometheus.Gauge
	opened     prometheus.Counter
	replies    *prometheus.CounterVec
	messages   *prometheus.CounterVec
	bytes      prometheus.Counter
	limits     *prometheus.CounterVec
	rules      *prometheus.CounterVec
	handshakes *prometheus.CounterVec
	logins     *prometheus.CounterVec
}

func newMetrics(reg prometheus.Registerer) *metrics {
	auto := promauto.With(reg)
	gauge := func(name, help string) prometheus.Gauge {
		return auto.NewGauge(prometheus.GaugeOpts{Name: "smtp2rest_smtp_" + name, Help: help})
	}
	counter := func(name, help string) prometheus.Counter {
		return auto.NewCounter(prometheus.CounterOpts{Name: "smtp2rest_smtp_" + name, Help: help})
	}
	vector := func(name, help, label string, values ...string) *prometheus.CounterVec {
		v := auto.NewCounterVec(prometheus.CounterOpts{Name: "smtp2rest_smtp_" + name, Help: help}, []string{label})
		for _, value := range values {
			v.WithLabelValues(value)
		}
		return v
	}
	codes := []string{"other"}
	for _, code := range reply.Codes() {
		codes = append(codes, strconv.Itoa(code))
	}
	return &metrics{
		open:     gauge("connections", "Clients that are connected. At limits.connections others are turned away."),
		opened:   counter("connections_total", "Connections that were let in; those turned away are in smtp2rest_smtp_limits_total."),
		replies:  vector("replies_total", "Replies to clients, by code. A rise of 4xx says that clients are told to come again, of 5xx that mail is refused.", "code", codes...),
		messages: vector("messages_total", "Messages whose content came, by whether they were taken, are to come again later (4xx), or were refused (5xx).", "result", "taken", "not_now", "refused"),
		bytes:    counter("received_bytes_total", "Content of messages that were taken, in bytes."),
		limits:   vector("limits_total", "How often a client met a limit, by the limit's name. It says which setting of [limits] to raise, or who is misbehaving.", "limit", stringsOf(limits())...),
		rules:    vector("rules_total", "How often a rule refused a client, a sender, an author or a recipient, by the rule's setting. It says which rule to look at when mail is refused that should not be.", "rule", stringsOf(rules())...),
		handshakes: vector("tls_handshakes_total", "TLS handshakes, by version, or failed. None of an old version for a month means that min_tls can be raised.", "version",
			"1.0", "1.1", "1.2", "1.3", "failed"),
		logins: vector("logins_total", "Attempts to log in: right, wrong, or shut_out for those not looked at after too many wrong ones.", "result", "right", "wrong", "shut_out"),
	}
}

func stringsOf[T ~string](list []T) []string {
	s := make([]string, len(list))
	for i, v := range list {
		s[i] = string(v)
	}
	return s
}

// replied counts a reply by its last line.
func (m *metrics) replied(line string) {
	code := line[:min(3, len(line))]
	if n, err := strconv.Atoi(code); err != nil || !slices.Contains(reply.Codes(), n) {
		code = "other"
	}
	m.replies.WithLabelValues(code).Inc()
}

func (m *metrics) message(r *reply.Reply, size int) {
	switch r.Code() / 100 {
	case 2:
		m.messages.WithLabelValues("taken").Inc()
		m.bytes.Add(float64(size))
	case 4:
		m.messages.WithLabelValues("not_now").Inc()
	default:
		m.messages.WithLabelValues("refused").Inc()
	}
}

func (m *metrics) hit(l limit) { m.limits.WithLabelValues(string(l)).Inc() }

func (m *metrics) handshake(version uint16) {
	switch version {
	case tls.VersionTLS10, tls.VersionTLS11, tls.VersionTLS12, tls.VersionTLS13:
		m.handshakes.WithLabelValues(strings.TrimPrefix(tls.VersionName(version), "TLS ")).Inc()
	default:
		m.handshakes.WithLabelValues("failed").Inc()
	}
}

// rule is a setting that refuses somebody, by its name.
type rule string

// The rules about clients.
const (
	ruleNetworks    rule = "listener.networks"
	ruleRequireAuth rule = "listener.require_auth"
	ruleTLS         rule = "listener.auth_without_tls"
)

// addressRules names the rules about addresses, in the order of session.rules and by
// the part of the mail that they are about.
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

// rules returns all rules.
func rules() []rule {
	list := []rule{ruleNetworks, ruleRequireAuth, ruleTLS}
	for _, place := range addressRules() {
		for _, r := range place {
			list = append(list, r.allow, r.deny)
		}
	}
	return list
}

// permits reports whether the rules permit an address, and counts the one that does not.
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
