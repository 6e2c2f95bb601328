package app

import (
	"github.com/smtp2rest/smtp2rest/relay/config"
	"github.com/smtp2rest/smtp2rest/smtpd"
)

// smtpSettings are smtpd's Options as far as a configuration has them.
func smtpSettings(c *config.Config) smtpd.Options {
	return smtpd.Options{
		Hostname:      c.Hostname,
		Listeners:     listeners(c.Listeners),
		Limits:        limits(c.Limits),
		Rules:         c.Rules.Policy(),
		QualifyDomain: c.Addresses.QualifyDomain,
	}
}

// listeners are the configuration's in smtpd's words.
func listeners(from []config.Listener) []smtpd.Listener {
	list := make([]smtpd.Listener, len(from))
	for i, l := range from {
		list[i] = smtpd.Listener{
			Address:    l.Address,
			LMTP:       l.Protocol == config.LMTP,
			SocketMode: l.SocketMode,
			Networks:   l.Networks,
			ProxyFrom:  l.ProxyFrom,
			TLS: smtpd.TLS{
				Mode:       tlsMode(l.TLS),
				MinVersion: l.MinTLS,
				CertFile:   l.CertFile,
				KeyFile:    l.KeyFile,
				SelfSigned: l.SelfSigned,
			},
			RequireAuth:    l.RequireAuth,
			AuthWithoutTLS: l.AuthWithoutTLS,
			Rules:          l.Rules.Policy(),
		}
	}
	return list
}

// limits are the configuration's in smtpd's words.
func limits(from config.Limits) smtpd.Limits {
	l := smtpd.Limits{
		MessageBytes:          from.MessageSize,
		HeaderBytes:           from.HeaderSize,
		LineBytes:             int(from.LineLength),
		CommandBytes:          int(from.CommandLength),
		Recipients:            from.Recipients,
		Connections:           from.Connections,
		ConnectionsPerAddress: from.ConnectionsPerAddress,
		MessagesPerConnection: from.MessagesPerConnection,
		IdleTime:              from.IdleTime,
		MessageTime:           from.MessageTime,
		MinRate:               from.MinRate,
		WrongCommands:         from.WrongCommands,
		WrongRecipients:       from.WrongRecipients,
		IdleCommands:          from.IdleCommands,
		AddressRate:           smtpd.Rate(from.RatePerAddress),
		UserRate:              smtpd.Rate(from.RatePerUser),
		SenderRate:            smtpd.Rate(from.RatePerSender),
	}
	if l.MinRate == 0 {
		l.MinRate = -1 // zero is smtpd's default
	}
	return l
}

func tlsMode(m config.TLSMode) smtpd.TLSMode {
	switch m {
	case config.StartTLS:
		return smtpd.StartTLS
	case config.ImplicitTLS:
		return smtpd.ImplicitTLS
	default:
		return smtpd.NoTLS
	}
}
