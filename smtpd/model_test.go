package smtpd

import (
	"fmt"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// An event is what a server does in a session: it asks its backend for a
// recipient, gives it a mail, or writes to the client.
type event struct {
	asked   string
	taken   bool // the recipient
	mail    *mail
	written string
}

// A model is the order of commands as RFC 5321 section 4.1.4 has it, with the
// chunks of RFC 3030, the logins of RFC 4954 and the replies of RFC 2033. It
// knows nothing of how the server works: it reads what the client sent, once
// more, and holds each reply and all that the backend was asked against it.
// Whether a sender or a recipient is taken is for the server to say.
type model struct {
	t      testing.TB
	said   string // by the client
	events []event
	trace  fmt.Stringer // for people
	lmtp   bool

	rest          string // of what was said
	greeted, open bool
	rcpts         []string
	chunks        string // as they came
	chunking      bool
	ended         bool // the server closes now
	secure        bool // what it writes are no replies any more
}

func (m *model) fail(format string, args ...any) {
	m.t.Helper()
	m.t.Fatalf("%s\nin: %q\nevents: %s", fmt.Sprintf(format, args...), m.said, m.trace)
}

// check plays the session.
func (m *model) check() {
	m.rest = m.said
	if code, _ := m.reply("the greeting"); code != 220 {
		m.fail("the greeting is %d", code)
	}
	for !m.ended {
		end, most := strings.IndexByte(m.rest, '\n'), commandBytes
		if len(m.rest) > 5 && strings.EqualFold(m.rest[:5], "AUTH ") {
			most = maxLoginLine + 1
		}
		switch {
		case end < 0 && len(m.rest) < most: // the client went
			m.ended = true
		case end < 0, end >= most:
			if code, _ := m.reply("a long line"); code != 500 {
				m.fail("a line that is too long is answered %d", code)
			}
			m.ended = true
		default:
			line := strings.TrimRight(m.rest[:end], " \t\r")
			m.rest = m.rest[end+1:]
			m.command(line)
		}
	}
	if len(m.events) > 0 && !m.secure {
		m.fail("after the end: %+v", m.events)
	}
	for _, e := range m.events {
		if e.mail != nil || e.asked != "" {
			m.fail("the backend hears of what was said in no session: %+v", e)
		}
	}
}

const commandBytes = 4 << 10

// http is what ends a session in which it is said.
var http = regexp.MustCompile(`(?i)^(GET|POST|PUT|CONNECT|OPTIONS|HEAD|DELETE|PATCH|TRACE)([ \t]|$)|^[^ \t]*:|(^|[ \t])HTTP/[^ \t]*$`)

// controls are in no command.
var controls = regexp.MustCompile(`[\x00-\x08\x0a-\x1f\x7f]`)

func (m *model) command(line string) {
	verb, arg := line, ""
	if i := strings.IndexAny(line, " \t"); i >= 0 {
		verb, arg = line[:i], strings.Trim(line[i:], " \t")
	}
	verb = strings.ToUpper(verb)
	if http.MatchString(line) {
		if code, _ := m.reply(line); code != 554 && code != 421 {
			m.fail("%q is answered %d", line, code)
		}
		m.ended = true
		return
	}
	if controls.MatchString(line) {
		if code, _ := m.reply(line); code/100 < 4 {
			m.fail("%q is answered %d", line, code)
		}
		return
	}
	switch verb {
	case "MAIL":
		if code, _ := m.reply(line); code == 250 {
			if !m.greeted || m.open {
				m.fail("MAIL is taken out of order")
			}
			m.open = true
		}
	case "RCPT":
		m.rcpt(line)
	case "DATA":
		m.data(line)
	case "BDAT":
		m.bdat(line, arg)
	case "HELO", "EHLO", "LHLO":
		if code, _ := m.reply(line); code == 250 {
			if m.lmtp != (verb == "LHLO") {
				m.fail("%s is taken", verb)
			}
			m.greeted = true
			m.reset()
		}
	case "RSET":
		if code, _ := m.reply(line); code == 250 {
			m.reset()
		}
	case "AUTH":
		m.auth(line)
	case "STARTTLS":
		code, lines := m.reply(line)
		switch {
		case code == 220 && m.open:
			m.fail("STARTTLS is taken inside a transaction")
		case code == 220:
			m.ended, m.secure = true, true
		case m.rest != "" && lines[0] == "503 5.5.1 nothing may follow STARTTLS":
			m.ended = true
		}
	case "QUIT":
		code, _ := m.reply(line)
		m.ended = m.ended || code == 221
	case "NOOP", "VRFY":
		m.reply(line)
	default:
		if code, _ := m.reply(line); code/100 != 5 && code != 421 {
			m.fail("%q is answered %d", line, code)
		}
	}
}

func (m *model) reset() { m.open, m.rcpts, m.chunks, m.chunking = false, nil, "", false }

func (m *model) rcpt(line string) {
	var asked []event
	for len(m.events) > 0 && m.events[0].asked != "" {
		asked, m.events = append(asked, m.events[0]), m.events[1:]
	}
	code, _ := m.reply(line)
	switch {
	case len(asked) > 0 && (!m.open || m.chunking):
		m.fail("a recipient reaches the backend without a sender")
	case len(asked) > 1:
		m.fail("%q asks for %+v", line, asked)
	case code == 250 && (len(asked) == 0 || !asked[0].taken), code != 250 && len(asked) > 0 && asked[0].taken && code != 421:
		m.fail("%q is answered %d, the backend was asked %+v", line, code, asked)
	case len(asked) == 1 && !strings.Contains(line, `"`) && !strings.Contains(line, strings.TrimSuffix(asked[0].asked, "@"+fuzzDomain)):
		m.fail("%q asks for %q", line, asked[0].asked)
	}
	if code == 250 {
		m.rcpts = append(m.rcpts, asked[0].asked)
	}
}

func (m *model) ready() bool { return m.open && len(m.rcpts) > 0 }

func (m *model) data(line string) {
	code, _ := m.reply(line)
	if code != 354 {
		if code/100 < 4 {
			m.fail("DATA is answered %d", code)
		}
		return
	}
	if !m.ready() || m.chunking {
		m.fail("DATA is taken out of order")
	}
	message, rest, complete := reference(m.rest)
	m.rest = rest
	if !complete {
		m.cut()
		return
	}
	m.end(message)
}

// cut is the end of a client in the middle of a message: at most it hears that.
func (m *model) cut() {
	for range m.replies() {
		if len(m.events) == 0 {
			break
		}
		if code, _ := m.reply("a message without an end"); code/100 != 4 {
			m.fail("a message without an end is answered %d", code)
		}
	}
	m.ended = true
}

// replies is how many there are to a message.
func (m *model) replies() int {
	if m.lmtp {
		return max(1, len(m.rcpts))
	}
	return 1
}

// end is that of a message: one delivery, to the recipients that were taken
// since MAIL, and a reply that says so; or a reply that says why not.
func (m *model) end(message string) {
	defer m.reset()
	var got *mail
	if len(m.events) > 0 && m.events[0].mail != nil {
		got, m.events = m.events[0].mail, m.events[1:]
	}
	positive := 0
	for range m.replies() {
		code, _ := m.reply("the end of a message")
		if code == 250 {
			positive++
		} else if code/100 < 4 {
			m.fail("a message is answered %d", code)
		}
	}
	switch {
	case got == nil && positive > 0:
		m.fail("a message is taken that the backend does not get")
	case got == nil && len(message) <= fuzzBytes:
		m.fail("the backend does not get %q", message)
	case got == nil:
		return
	case got.data != message:
		m.fail("the backend gets %q for %q", got.data, message)
	case !slices.Equal(got.env.Recipients, m.rcpts):
		m.fail("the backend gets a message to %q for %q", got.env.Recipients, m.rcpts)
	case positive == 0 && !m.lmtp && !strings.Contains(message, "panic"):
		m.fail("a message that the backend takes is refused")
	}
}

var bdatArgument = regexp.MustCompile(`(?i)^([0-9]+)([ \t]+LAST)?$`)

func (m *model) bdat(line, arg string) {
	words := bdatArgument.FindStringSubmatch(arg)
	size, err := 0, error(nil)
	if words != nil {
		size, err = strconv.Atoi(words[1])
	}
	if words == nil || err != nil {
		if code, _ := m.reply(line); code != 501 && code != 421 {
			m.fail("%q is answered %d", line, code)
		}
		m.ended = true // nobody knows how much is to come
		return
	}
	last := words[2] != ""
	if size > len(m.rest) {
		m.rest = ""
		m.cut()
		return
	}
	m.chunks += m.rest[:size]
	m.rest = m.rest[size:]
	switch {
	case !m.ready():
		m.chunks = ""
		if code, _ := m.reply(line); code/100 < 4 {
			m.fail("a chunk without recipients is answered %d", code)
		}
	case last:
		m.end(lineEnds.ReplaceAllString(m.chunks, "\r\n"))
	default:
		m.chunking = true
		switch code, _ := m.reply(line); {
		case code/100 >= 4:
			m.reset()
		case code != 250:
			m.fail("a chunk is answered %d", code)
		}
	}
}

var lineEnds = regexp.MustCompile(`\r*\n|\r`)

func (m *model) auth(line string) {
	code, _ := m.reply(line)
	for code == 334 {
		end := strings.IndexByte(m.rest, '\n')
		if end < 0 && len(m.rest) <= maxLoginLine {
			m.ended = true
			return
		}
		if end < 0 || end >= maxLoginLine {
			m.ended = true
			m.rest = ""
		} else {
			m.rest = m.rest[end+1:]
		}
		code, _ = m.reply("an answer to a challenge")
	}
	switch {
	case code == 235 && (!m.greeted || m.open):
		m.fail("AUTH is taken out of order")
	case code != 235 && code/100 < 4:
		m.fail("AUTH is answered %d", code)
	}
}

var (
	replyLine = regexp.MustCompile(`^([2-5][0-9][0-9])([ -])([ -~]*)$`)
	enhanced  = regexp.MustCompile(`^([245])\.[0-9]{1,3}\.[0-9]{1,3} `)
)

// reply takes the next event, which must be one whole reply of the right form.
func (m *model) reply(to string) (code int, lines []string) {
	if len(m.events) == 0 {
		m.fail("no reply to %.100q", to)
	}
	e := m.events[0]
	m.events = m.events[1:]
	if e.written == "" {
		m.fail("%.100q reaches the backend: %+v", to, e)
	}
	text, found := strings.CutSuffix(e.written, "\r\n")
	if !found {
		m.fail("%.100q is answered %q", to, e.written)
	}
	lines = strings.Split(text, "\r\n")
	for i, l := range lines {
		f := replyLine.FindStringSubmatch(l)
		if f == nil || len(l) > 510 || f[1] != lines[0][:3] || (f[2] == " ") != (i == len(lines)-1) {
			m.fail("%.100q is answered %q", to, e.written)
		}
	}
	code, _ = strconv.Atoi(lines[0][:3]) // replyLine has digits there
	class := enhanced.FindStringSubmatch(lines[len(lines)-1][4:])
	plain := code == 220 && to == "the greeting" || code == 334 || code == 354 || len(lines) > 1
	if !plain && (class == nil || class[1] != lines[0][:1]) {
		m.fail("%.100q is answered %q, without its enhanced code", to, text)
	}
	m.ended = m.ended || code == 421
	return code, lines
}
