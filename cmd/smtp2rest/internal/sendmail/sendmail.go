// Package sendmail is what a program that calls /usr/sbin/sendmail expects of
// it, as far as that is pure: the command line, the header of the mail, its
// recipients and the exit codes of sysexits(3). cmd/smtp2rest around it reads
// the mail, speaks SMTP and ends the process.
//
// The caller may be a web application that hands on what strangers typed, so
// nothing here starts a program, writes a file, or lets one value become two.
package sendmail

import "fmt"

// Mode is what a call asks for.
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

// Command is a command line.
type Command struct {
	Mode        Mode
	From        string // -f or -r, an address; "" is none or the null sender
	HasFrom     bool   // -f or -r was given
	Name        string // -F
	Recipients  []string
	FromHeader  bool   // -t: recipients are in the header as well
	IgnoreDots  bool   // -i: a line with a dot alone does not end the mail
	Verbose     bool   // -v
	Settings    string // -C, a file of settings
	AliasesFile string // -oA or -O AliasFile=
}

// Exit codes of sysexits(3). Programs look at them: cron logs them, and those
// that can try again do so after TempFail.
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
	Protocol    = 76 // the other side is no SMTP server, or another kind of one
	NoPerm      = 77 // the sender may not, or the recipient does not want it
	Config      = 78 // our settings are wrong
)

// Error is a failure with its exit code.
type Error struct {
	Code int
	Text string
}

func (e *Error) Error() string { return e.Text }

// Errorf makes an Error.
func Errorf(code int, format string, args ...any) *Error {
	return &Error{code, fmt.Sprintf(format, args...)}
}
