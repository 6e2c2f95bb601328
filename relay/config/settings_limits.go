package config

import (
	"fmt"
	"sort"
	"strconv"
	"strings"
	"time"

	"github.com/smtp2rest/smtp2rest/relay/mail"
)

// Limits bound what clients can use.
type Limits struct {
	Memory                int64 // bytes, of all mail in flight together
	MessageSize           int64 // bytes
	HeaderSize            int64 // bytes, of a mail's header
	LineLength            int64 // bytes, of a line of a mail
	CommandLength         int64 // bytes
	Recipients            int   // of one message
	Connections           int
	ConnectionsPerAddress int
	MessagesPerConnection int
	IdleTime              time.Duration // between two reads from a client
	MessageTime           time.Duration // for all of a message's content
	MinRate               int           // bytes a second of a message's content; 0 is none
	WrongCommands         int
	WrongRecipients       int
	IdleCommands          int

	// Of recipients.
	RatePerAddress, RatePerUser, RatePerSender Rate
}

// Rate is a number in a time; the zero Rate is no bound.
type Rate struct {
	Number int
	Per    time.Duration
}

func limitSettings(l *Limits) []setting {
	return append([]setting{
		{path: "limits.memory", value: sizeValue{&l.Memory, 16 * mib, 1024 * gib}, def: "192MiB",
			doc: "The memory of all mail in flight, two to seven times its size, and of connections, 32KiB\neach. Is it used up, clients wait 5 s and are then told to come again (docs/limits.md)."},
		{path: "limits.message_size", value: sizeValue{&l.MessageSize, 64 * kib, gib}, def: "25MiB",
			doc: "The largest mail that is taken."},
		{path: "limits.header_size", value: sizeValue{&l.HeaderSize, 4 * kib, mib}, def: "256KiB",
			doc: "The largest header of a mail that is taken."},
		{path: "limits.line_length", value: sizeValue{&l.LineLength, kib, 64 * mib}, def: "1MiB",
			doc: "The longest line of a mail that is taken."},
		{path: "limits.command_length", value: sizeValue{&l.CommandLength, 4 * kib, 64 * kib}, def: "4KiB",
			doc: "The longest command line that is taken."},
		{path: "limits.recipients", value: countValue{&l.Recipients, 1, 10000}, def: int64(100),
			doc: "The most recipients of one mail."},
		{path: "limits.connections", value: countValue{&l.Connections, 1, 100000}, def: int64(200),
			doc: "The most connections at once. A quarter is kept for clients that may send without a\nlogin, where there can be any."},
		{path: "limits.connections_per_address", value: countValue{&l.ConnectionsPerAddress, 1, 100000}, def: int64(50),
			doc: "The most connections at once from one address at one listener."},
		{path: "limits.messages_per_connection", value: countValue{&l.MessagesPerConnection, 1, 1000000}, def: int64(10000),
			doc: "The most mails on one connection. A client may then connect again."},
		{path: "limits.idle_time", value: timeValue{&l.IdleTime, time.Second, day}, def: "5m",
			doc: "How long a client may be silent, or take for one command."},
		{path: "limits.message_time", value: timeValue{&l.MessageTime, time.Second, day}, def: "30m",
			doc: "How long a client may take to hand over one mail."},
		{path: "limits.min_rate", value: countValue{&l.MinRate, 0, 1000000}, def: int64(100),
			doc: "How many bytes of a mail a client must send each second. It may be two minutes behind.\n0 is no bound."},
		{path: "limits.wrong_commands", value: countValue{&l.WrongCommands, 1, 10000}, def: int64(20),
			doc: "How often a client may be wrong before it is disconnected; a mail that is taken\nforgives all."},
		{path: "limits.wrong_recipients", value: countValue{&l.WrongRecipients, 1, 10000}, def: int64(50),
			doc: "How many recipients in a row may be refused before the client is disconnected."},
		{path: "limits.idle_commands", value: countValue{&l.IdleCommands, 10, 1000000}, def: int64(1000),
			doc: "How often a client may say NOOP, RSET or EHLO, or be told to come later, without sending\na mail before it is disconnected."},
	}, rateSettings(l)...)
}

func rateSettings(l *Limits) []setting {
	return []setting{
		{path: "limits.rate_per_address", value: numberPerTimeValue{&l.RatePerAddress}, def: "",
			doc: "The most recipients from one address, as in \"600/hour\"; minute and day will do as well.\nMore are told when to come again. \"\" is no bound."},
		{path: "limits.rate_per_user", value: numberPerTimeValue{&l.RatePerUser}, def: "",
			doc: "The same for each user who logged in."},
		{path: "limits.rate_per_sender", value: numberPerTimeValue{&l.RatePerSender}, def: "",
			doc: "The same for each sender of an envelope."},
	}
}

// numberPerTimeValue is "number/time"; "" is no bound.
type numberPerTimeValue struct{ p *Rate }

func timeWords() map[string]time.Duration {
	return map[string]time.Duration{"minute": time.Minute, "hour": time.Hour, "day": day}
}

func (r numberPerTimeValue) set(v any) error {
	const want = `write a number in a time in quotes, as in "600/hour"; the times are minute, hour and day`
	s, ok := v.(string)
	if !ok {
		return wrongType(v, want)
	}
	if s == "" {
		*r.p = Rate{}
		return nil
	}
	number, word, _ := strings.Cut(s, "/")
	n, err := strconv.Atoi(number)
	per, known := timeWords()[word]
	if err != nil || n < 1 || n > 10_000_000 || !known {
		return fmt.Errorf("found %s; %s", show(s), want)
	}
	*r.p = Rate{n, per}
	return nil
}

func (r numberPerTimeValue) text() string {
	for word, per := range timeWords() {
		if r.p.Number > 0 && per == r.p.Per {
			return quote(fmt.Sprintf("%d/%s", r.p.Number, word))
		}
	}
	return quote("")
}

// connectionBytes is what smtpd reserves for each connection.
const connectionBytes = 32 * kib

// validateLimits finds limits that cannot be reached because of another.
func (l *loader) validateLimits() {
	c := &l.cfg.Limits
	if l.bad["limits.memory"] {
		return
	}
	if idle := int64(c.Connections) * connectionBytes; idle > c.Memory/2 && !l.bad["limits.connections"] {
		l.problem("limits.memory", "found %s, of which limits.connections = %d alone may take %s; write at least %s, or allow fewer connections",
			quote(FormatSize(c.Memory)), c.Connections, quote(FormatSize(idle)), quote(FormatSize(2*idle)))
		return
	}
	if fits := LargestMail(*c); c.MessageSize > fits && !l.bad["limits.message_size"] && !l.bad["limits.connections"] {
		if l.find("limits.message_size").origin == "default" {
			c.MessageSize = fits
			return
		}
		// Clients are told limits.message_size before they send (RFC 1870). Mail
		// that is as large as that and can never be dealt with would be lost.
		needs := (memoryFor(c.MessageSize, c.Connections) + mib - 1) / mib * mib
		l.problem("limits.message_size", "found %s, and a text of that size needs more than limits.memory; write at most %s, or limits.memory = %s",
			quote(FormatSize(c.MessageSize)), quote(FormatSize(fits)), quote(FormatSize(needs)))
	}
}

// LargestMail is the largest mail of ordinary text for which there is memory
// when nothing but connections takes any.
func LargestMail(c Limits) int64 {
	fits := int64(sort.Search(int(c.Memory/2/kib), func(n int) bool { return memoryFor(int64(n+1)*kib, c.Connections) > c.Memory }))
	return fits * kib
}

// memoryFor is what a mail of ordinary text takes beside the connections: while
// it comes no more than half of all memory, and then what mapping it takes.
func memoryFor(size int64, connections int) int64 {
	return max(2*size, size+mail.MostCost(size)+int64(connections)*connectionBytes)
}
