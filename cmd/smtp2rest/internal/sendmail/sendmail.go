// Package sendmail has the rules of sendmail(1): the command line, the header of the
// mail, its recipients, and the exit codes of sysexits(3). internal/cli/sendmail reads
// the mail, speaks SMTP and ends the process.
//
// The caller may be a web application that passes on what strangers typed. So nothing
// here starts a program or writes a file, and no value can inject another header line.
package sendmail

import (
	"fmt"
	"net"
	"strings"
)

// A Mode is what sendmail is asked to do.
type Mode byte

// The modes, by their letters behind -b.
const (
	Deliver Mode = 'm' // send the mail on standard input
	Speak   Mode = 's' // speak SMTP on standard input and output
	List    Mode = 'p' // print the queue, as mailq
	Aliases Mode = 'i' // check the aliases, as newaliases
	Flush   Mode = 'q' // try what waits in the queue now; -q
	Help    Mode = 'h' // --help
)

// A Command is a command line.
type Command struct {
	Mode        Mode
	From        string // -f or -r, an address; "" is the null sender, or none was given
	HasFrom     bool   // -f or -r was given
	FullName    string // -F
	Recipients  []string
	FromHeader  bool   // -t: recipients are in the header as well
	IgnoreDots  bool   // -i: a line with a dot alone does not end the mail
	Verbose     bool   // -v
	Settings    string // -C, a file of settings
	AliasesFile string // -oA or -O AliasFile=
}

// Exit codes of sysexits(3). Cron logs them, and programs that can try again do so after
// TempFail.
const (
	OK          = 0
	Usage       = 64 // the command line is wrong
	DataErr     = 65 // the mail is wrong
	NoUser      = 67 // a recipient does not exist
	NoHost      = 68 // a recipient's domain does not exist
	Unavailable = 69 // refused for another reason
	Software    = 70 // a bug
	IOErr       = 74 // the mail cannot be read
	TempFail    = 75 // not now: nothing is lost if the caller tries again
	Protocol    = 76 // the server broke the protocol
	NoPerm      = 77 // the sender may not send, or the recipient wants no mail
	Config      = 78 // our settings are wrong
)

// An Error is a failure with its exit code.
type Error struct {
	Code int
	Text string
}

func (e *Error) Error() string { return e.Text }

// Errorf makes an Error.
func Errorf(code int, format string, args ...any) *Error {
	return &Error{code, fmt.Sprintf(format, args...)}
}

// ExitCode returns the exit code for a refusal. code is its reply code, such as 550, and
// enhanced is its enhanced status code (RFC 3463), such as 5.1.1; enhanced is zero if the
// server gave none.
func ExitCode(code int, enhanced [3]int) int {
	if code/100 != 5 {
		return TempFail
	}
	if enhanced[0] == 5 {
		if exit := byEnhanced(enhanced[1], enhanced[2]); exit != 0 {
			return exit
		}
	}
	switch code {
	case 500, 501, 502, 503, 504, 555:
		return Protocol
	case 530, 534, 535, 538:
		return NoPerm
	case 552, 553:
		return DataErr
	case 550, 551:
		if enhanced[0] == 0 {
			return NoUser // the server says no more than that
		}
	}
	return Unavailable
}

// byEnhanced returns the exit code for an enhanced status code (RFC 3463 section 3), or 0.
func byEnhanced(subject, detail int) int {
	switch subject {
	case 1: // addressing
		switch detail {
		case 1, 6, 10: // bad mailbox; moved; null MX (RFC 7505)
			return NoUser
		case 2: // bad destination system
			return NoHost
		case 3, 7, 8: // bad syntax of the recipient or of the sender; bad sender's system
			return DataErr
		}
	case 2: // mailbox
		if detail == 3 {
			return DataErr // too large for the mailbox
		}
	case 3: // mail system
		if detail == 4 {
			return DataErr // too large for the system
		}
	case 5: // protocol
		return Protocol
	case 6: // content
		return DataErr
	case 7: // security or policy
		return NoPerm
	}
	return 0
}

// DefaultServer is where the daemon listens by default.
const DefaultServer = "127.0.0.1:2525"

// Settings are all settings in sendmail.conf. The daemon's own file is not read, because it
// names secret files, and any user may run sendmail.
type Settings struct {
	Server string // host:port, or the path of a unix socket
	Domain string // of senders that have none; "" is the machine's name
	Spool  string // where mail is kept while the daemon is away; see SpoolOf
}

// ParseSettings reads lines of "name = value"; # begins a comment. Its error names the
// line by its number and does not show it.
func ParseSettings(text string) (Settings, error) {
	s := Settings{Server: DefaultServer}
	n := 0
	for line := range strings.Lines(text) {
		n++
		line, _, _ = strings.Cut(line, "#")
		if line = strings.TrimSpace(line); line == "" {
			continue
		}
		name, value, found := strings.Cut(line, "=")
		value = strings.Trim(strings.TrimSpace(value), `"`)
		switch name = strings.TrimSpace(name); {
		case !found || value == "":
			return s, fmt.Errorf("line %d: write name = value", n)
		case name == "server":
			s.Server = value
		case name == "domain":
			s.Domain = value
		case name == "spool":
			s.Spool = value
		default:
			return s, fmt.Errorf("line %d: unknown setting; the settings are server, domain and spool", n)
		}
	}
	if s.Spool != "" && s.Spool != NoSpool && !strings.HasPrefix(s.Spool, "/") {
		return s, fmt.Errorf("spool: %s is not an absolute path, and not \"none\"", clean(s.Spool))
	}
	if s.Domain != "" && !isDomain(s.Domain) {
		return s, fmt.Errorf("domain: %s is not a domain name", clean(s.Domain))
	}
	return s, nil
}

// NoSpool in place of a directory is none.
const NoSpool = "none"

// SpoolOf returns the directory in which mail is kept, or "". named is the one in the
// environment. Without a setting it is the default, but only for the server that takes the
// mail from there: one on this machine that the settings name, and not one that the caller
// chose for this mail.
func (s Settings) SpoolOf(named string, chosen bool, byDefault string) string {
	spool := s.Spool
	if chosen {
		spool = NoSpool
	}
	if named != "" {
		spool = named
	}
	switch spool {
	case NoSpool:
		return ""
	case "":
		if isLocal(s.Server) {
			return byDefault
		}
		return ""
	}
	return spool
}

// isLocal reports whether a server is on this machine.
func isLocal(server string) bool {
	network, address, err := ServerAddress(server)
	if err != nil || network == "unix" {
		return err == nil
	}
	host, _, _ := net.SplitHostPort(address)
	ip := net.ParseIP(host)
	return strings.EqualFold(host, "localhost") || ip != nil && ip.IsLoopback()
}

// ServerAddress returns the network and address of a server, for net.Dial.
func ServerAddress(server string) (network, address string, err error) {
	if path, ok := strings.CutPrefix(server, "unix:"); ok || strings.HasPrefix(server, "/") {
		return "unix", path, nil
	}
	if _, port, err := net.SplitHostPort(server); err != nil || port == "" {
		return "", "", Errorf(Config, "server %s is neither host:port nor the path of a socket", clean(server))
	}
	return "tcp", server, nil
}

// Domain returns the machine's name if it is a domain, otherwise "localhost".
func Domain(hostname string) string {
	if isDomain(hostname) {
		return hostname
	}
	return "localhost"
}
