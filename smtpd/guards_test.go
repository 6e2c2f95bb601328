package smtpd

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// guards are what go-smtp v0.25.1 does on its own that must not happen, what
// prevents it here, and the tests that fail without that: dialogs of testdata,
// or functions. Whoever moves to another version of it reads this first.
func guards() []struct{ fault, guard, tests string } {
	return []struct{ fault, guard, tests string }{
		{"a BDAT that is cut short counts as complete", "content.readChunk; BDAT never reaches go-smtp", "bdat_truncated bdat_truncated_between TestReset FuzzSession"},
		{"BDAT and then RSET run two transactions at once", "filter.bdat collects chunks", "bdat FuzzSession"},
		{"RSET leaves the time of the message running", "session.Reset", "TestResetEndsMessageTime"},
		{"after a time-out in DATA the rest of the mail runs as commands", "filter.interrupted hangs up", "data_timeout message_time bdat_timeout data_truncated"},
		{"one deadline for a whole DATA", "clock, set anew for each read", "TestSlowButSteady TestClock"},
		{"an octet at a time keeps a connection for ever", "clock's rate, and its end of a line", "TestClock TestClockOfALine TestByteAtATime"},
		{"CR CR LF before the dot hides the end of DATA", "content.readData", "end_of_data FuzzReadData"},
		{"the CR of .CR is lost", "content.readData", "smuggling FuzzReadData"},
		{"bare LF and CR reach the backend as they are", "content.add", "smuggling end_of_data FuzzReadData FuzzReadChunks"},
		{"the limit of lines holds inside DATA", "content.maxLine instead of MaxLineLength", "long_lines"},
		{"without that limit a command may be endless", "conn.in has the size of a command", "endless_command auth_huge TestEndless"},
		{"a message of exactly SIZE octets is refused", "content.put", "size"},
		{"what is too large is read for ever", "content.add, errDrained", "TestContentDrains TestEndless"},
		{"a message grows in memory by doubling, without a bound for all", "conn.hold and smtpd/budget", "TestMemoryIsGivenBack TestContentReserves TestContentWithoutMemory TestLimits"},
		{"wrapped errors leak", "session.answer, reply.From", "no_leak"},
		{"addresses are not looked at, quotes are dropped", "path.go", "addresses FuzzSession"},
		{"SIZE beyond 4 GiB is a syntax error, unknown parameters are 500, the last of two counts", "parseMail", "addresses size"},
		{"RCPT TO:<root> is refused", "parsePath, qualified", "TestUnqualified"},
		{"EHLO's argument is echoed with its control characters", "filter.command, conn.write", "control_characters"},
		{"a MAIL inside a transaction is accepted", "filter.mail", "sequence"},
		{"RCPT and DATA out of order are 502", "filter.rcpt, filter.data", "sequence starttls relay_denied"},
		{"AUTH inside a transaction is accepted", "filter.login", "auth_in_transaction"},
		{"bad base64 in AUTH is temporary", "filter.login; AUTH never reaches go-smtp", "auth_plain"},
		{"no limit of attempts to log in", "smtpd/auth", "auth_guessing TestGuessingInManyConnections TestLimits"},
		{"no limit of connections", "connections.enter", "TestConnectionLimits TestTooManyConnectionsInTLS TestLimits"},
		{"no limit of commands but four errors of the protocol", "counts.met, filter.tellIdle", "wrong_commands wrong_recipients TestEndless"},
		{"a panic in Logout ends the process", "session.Logout does nothing", "TestLogout"},
		{"a panic outside a command ends the process", "filter.next recovers", "TestPanicInFilter"},
		{"LMTP runs the session beside the one that writes, and panics on a wrong recipient", "session.Data", "lmtp_each lmtp_panic"},
		{"Shutdown waits for idle clients, and Close then closes nothing", "connections.stop, connections.abort", "TestStop TestStopHard TestStopInTLS"},
		{"STARTTLS leaves what was buffered", "filter.startTLS, conn.handshake", "starttls_injection auth_before_starttls"},
		{"a recipient is promised to get the mail", "filter.replied", "simple"},
	}
}

// A guard without a test is a hope.
func TestGuards(t *testing.T) {
	var tests strings.Builder
	files, err := filepath.Glob("*_test.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		source, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		tests.Write(source)
	}
	for _, g := range guards() {
		named := strings.Fields(g.tests)
		if len(named) == 0 || g.guard == "" {
			t.Errorf("%s: no guard, or no test", g.fault)
		}
		for _, name := range named {
			_, err := os.Stat(filepath.Join("testdata", name+".txt"))
			if err != nil && !strings.Contains(tests.String(), "\nfunc "+name+"(") {
				t.Errorf("%s: there is no test %s", g.fault, name)
			}
		}
	}
}

// go-smtp calls Logout where nothing catches a panic, for sessions in any
// state.
func TestLogout(t *testing.T) {
	if err := new(session).Logout(); err != nil {
		t.Error(err)
	}
}
