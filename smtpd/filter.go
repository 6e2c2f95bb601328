package smtpd

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/smtp2rest/smtp2rest/smtpd/auth"
	"github.com/smtp2rest/smtp2rest/smtpd/budget"
	"github.com/smtp2rest/smtp2rest/smtpd/reply"
)

// A filter stands between a client's connection and go-smtp. To go-smtp it is the
// connection: a net.Conn whose Read gives one command at a time, and whose Write
// takes the replies. go-smtp reads the next command only when it has answered the
// last one, so the filter always knows where in the protocol the client is. It
// decides what go-smtp must not decide: limits, the order of commands, addresses,
// STARTTLS, AUTH, the end of a message, and the form of every reply.
//
// The filter also reads the content of a message. When go-smtp has said 354 and
// calls the session, the session takes the content with message, and go-smtp then
// reads only the final dot. BDAT never reaches go-smtp, which takes a truncated
// chunk for a complete message and runs two transactions at once after a RSET. The
// filter collects the chunks, and passes the last one on as a DATA whose 354 the
// client does not see.
type filter struct {
	*conn
	session *session
	proxied bool // the connection begins with a PROXY header

	begun    bool // what comes before the greeting is done
	greeted  bool // the client said EHLO, and inside TLS again
	exchange exchange
	chunks   *content // the message that comes by BDAT, nil when none does
	counts   counts
}

// An exchange is one command and its reply: what go-smtp reads of the command, and
// what the client is told of the reply.
type exchange struct {
	verb    string      // "" for what is no command
	path    pathCommand // of MAIL and RCPT
	input   []byte      // what go-smtp reads next
	instead []answer    // what the client is told in place of go-smtp's next replies
	output  []byte      // go-smtp's reply, as far as it has written it
}

// An answer takes the place of one of go-smtp's replies. Its reply is nil where the
// client is told nothing of a positive one.
type answer struct {
	reply *reply.Reply
	rcpt  string // the recipient it is about, where each has a reply
}

// begin does what comes before the greeting: the PROXY header and TLS. It runs on
// the connection's own goroutine, so a slow client keeps nobody else waiting.
func (f *filter) begin() error {
	f.begun = true
	if f.proxied {
		if err := f.meetProxy(); err != nil {
			return err
		}
	}
	if f.listener.config.TLS.Mode == ImplicitTLS {
		return f.handshake()
	}
	return nil
}

// meetProxy reads from the proxy who the client is.
func (f *filter) meetProxy() error {
	if err := f.awaitHandshake(); err != nil {
		return err
	}
	addr, err := readProxy(f.socket)
	_ = f.setIdle(false)
	if err != nil {
		f.log.Info("PROXY header refused", "error", err)
		return err
	}
	s := f.session
	proxy := s.client.Addr
	s.client.Addr = addr
	if addr.IsValid() {
		f.share = s.server.memory.ShareOf(origin(addr), f.press)
		if r := s.server.connections.move(f.conn, source{origin(addr), f.listener.port}, s.class()); r != nil {
			f.log.Info("refused", "reply", r.String(), "for", addr.String())
			f.sayInClear(r)
			return r
		}
	}
	f.classify()
	f.log = clientLog(s.server.log, s.client).With("proxy", proxy.String())
	return nil
}

// firstClass is the class of a client that has just connected.
func (f *filter) firstClass() class {
	if f.proxied {
		return unknown
	}
	c := f.session.class()
	f.setStranger(c == stranger)
	return c
}

// classify counts the client as what it may do now.
func (f *filter) classify() {
	c := f.session.class()
	if c != f.entry.class {
		f.session.server.connections.classify(f.conn, c)
	}
	f.setStranger(c == stranger)
}

// setStranger gives the client as much time as it has as a stranger, or not.
func (f *filter) setStranger(yes bool) {
	f.withClock(func(k *clock, _ time.Time) { k.stranger = yes })
}

// Read gives go-smtp its next input.
func (f *filter) Read(p []byte) (int, error) {
	if f.isClosed() {
		return 0, net.ErrClosed // after QUIT: what the client sent behind it is not read
	}
	if len(f.exchange.input) == 0 {
		if f.hungUp {
			return 0, io.EOF
		}
		if err := f.next(); err != nil {
			return 0, io.EOF // on any other error go-smtp would write a reply
		}
	}
	n := copy(p, f.exchange.input)
	f.exchange.input = f.exchange.input[n:]
	return n, nil
}

// Write takes go-smtp's replies, and passes on what the client is to hear.
func (f *filter) Write(p []byte) (int, error) {
	f.exchange.output = append(f.exchange.output, p...)
	for {
		lines, rest := cutReply(f.exchange.output)
		if lines == nil {
			return len(p), nil
		}
		f.exchange.output = rest
		if err := f.replied(lines); err != nil {
			return 0, err
		}
	}
}

// cutReply returns the lines of the first reply, nil if it is not whole yet.
func cutReply(output []byte) (lines []string, rest []byte) {
	for {
		line, after, found := bytes.Cut(output, []byte("\r\n"))
		if !found {
			return nil, output
		}
		lines, output = append(lines, string(line)), after
		if len(line) < 4 || line[3] == ' ' {
			return lines, output
		}
	}
}

// next waits for commands until there is one for go-smtp to answer. go-smtp
// catches panics in what it calls for a command, but not here.
func (f *filter) next() (err error) {
	defer func() {
		if value := recover(); value != nil {
			err = f.refuse(f.session.recovered(value))
		}
	}()
	for {
		line, err := f.readCommand(f.chunks == nil, isAuth)
		if err == nil {
			err = f.command(line)
		}
		if err != nil {
			return err
		}
		switch {
		case len(f.exchange.input) > 0:
			return nil
		case f.hungUp:
			return io.EOF
		}
	}
}

// readCommand returns a command, or a line of a login, without its end. The end may
// be a bare LF: many programs write "\n" to a socket, and nothing can hide behind
// it, as it ends every command. A line that the client did not finish is no command.
func (f *filter) readCommand(idle bool, isLogin func([]byte) bool) (string, error) {
	f.exchange = exchange{}
	ending := f.setIdle(idle)
	defer func() { _ = f.setIdle(false) }()
	if ending != nil {
		return "", f.refuse(f.lost(ending))
	}
	p, err := f.readLine(isLogin)
	f.confirm(err)
	switch {
	case errors.Is(err, bufio.ErrBufferFull):
		f.metrics.hit(limitCommand)
		f.hangUp(lingerTime)
		return "", f.refuse(reply.LineTooLong())
	case err != nil:
		return "", f.refuse(f.lost(err))
	}
	return strings.TrimRight(string(p), " \t\r\n"), nil
}

func isAuth(line []byte) bool {
	return len(line) > len("AUTH ") && strings.EqualFold(string(line[:len("AUTH ")]), "AUTH ")
}

// refuse answers with r, unless it is nil, and ends go-smtp's reading.
func (f *filter) refuse(r *reply.Reply) error {
	if r != nil {
		_ = f.answer(r) // the connection ends either way
	}
	return io.EOF
}

// command answers a command, or passes it on to go-smtp.
func (f *filter) command(line string) error {
	verb, arg := cutCommand(line)
	switch {
	case isHTTP(verb, line):
		// A web page can have a browser post to us: the mail in what it posts
		// must not be read as commands.
		f.hangUp(lingerTime)
		return f.answer(reply.WrongProtocol())
	case strings.ContainsFunc(line, func(r rune) bool { return r < ' ' && r != '\t' || r == 0x7f }):
		return f.answer(reply.BadCommand("control characters in a command"))
	}
	f.exchange.verb = verb
	// A client that may not send needs no more commands than it takes to log in.
	if f.entry.class == stranger && verb != "QUIT" {
		if f.counts.beforeLogin++; f.counts.beforeLogin > f.limits.StrangerCommands {
			return f.answer(f.over(limitStrangerCommands, reply.TooManyErrors()))
		}
	}
	switch verb {
	case "HELO", "EHLO", "LHLO":
		// RFC 2920 section 3.1: nothing may follow before the reply. A client that
		// sends more does not speak SMTP: somebody had it post a text to us.
		if f.early() {
			f.hangUp(lingerTime)
			return f.answer(reply.TooEarly("the reply to " + verb))
		}
		return f.passIdle(arg)
	case "RSET", "NOOP", "VRFY", "QUIT":
		return f.passIdle(arg)
	case "MAIL", "RCPT", "DATA":
		if r := f.transaction(arg); r != nil {
			return f.answer(r)
		}
		return nil
	case "BDAT":
		return f.bdat(arg)
	case "STARTTLS":
		return f.startTLS(arg)
	case "AUTH":
		return f.login(arg)
	case "HELP", "EXPN", "ETRN", "TURN":
		return f.answer(reply.NotImplemented(verb))
	}
	f.exchange.verb = ""
	return f.answer(reply.BadCommand("command not recognized"))
}

func cutCommand(line string) (verb, arg string) {
	i := strings.IndexAny(line, " \t")
	if i < 0 {
		return strings.ToUpper(line), ""
	}
	return strings.ToUpper(line[:i]), strings.Trim(line[i:], " \t")
}

// isHTTP reports whether a line is a request or a header field of HTTP. A client
// that sends a mail although DATA was refused ends here as well.
func isHTTP(verb, line string) bool {
	switch verb {
	case "GET", "POST", "PUT", "CONNECT", "OPTIONS", "HEAD", "DELETE", "PATCH", "TRACE":
		return true
	}
	last := line[strings.LastIndexAny(line, " \t")+1:]
	return strings.Contains(verb, ":") || len(last) >= len("HTTP/") && strings.EqualFold(last[:len("HTTP/")], "HTTP/")
}

// pass lets go-smtp read a command.
func (f *filter) pass(line string) { f.exchange.input = []byte(line + "\r\n") }

// over counts a limit that the client is over, and returns the reply, a 421.
func (f *filter) over(l limit, r *reply.Reply) *reply.Reply {
	f.metrics.hit(l)
	f.linger = lingerTime
	return r
}

// passIdle passes on a command that brings no mail nearer, unless there were too
// many of them.
func (f *filter) passIdle(arg string) error {
	verb := f.exchange.verb
	if f.counts.idle++; f.counts.idle > f.limits.IdleCommands && verb != "QUIT" {
		return f.answer(f.over(limitIdleCommands, reply.TooManyErrors()))
	}
	f.pass(strings.TrimSpace(verb + " " + arg))
	return nil
}

// transaction passes MAIL, RCPT and DATA on in the one form that go-smtp cannot
// misread, or returns why not.
func (f *filter) transaction(arg string) *reply.Reply {
	verb := f.exchange.verb
	if f.chunks != nil {
		return reply.BadSequence(verb + " is not allowed between chunks")
	}
	switch verb {
	case "MAIL":
		return f.mail(arg)
	case "RCPT":
		return f.rcpt(arg)
	}
	return f.data(arg)
}

func (f *filter) mail(arg string) (refused *reply.Reply) {
	switch {
	case !f.greeted:
		return reply.BadSequence("say EHLO first")
	case f.session.open:
		return reply.BadSequence("a transaction is open already")
	case f.counts.messages >= f.limits.MessagesPerConnection:
		return f.over(limitMessages, reply.TooManyMessages())
	}
	f.exchange.path, refused = parseMail(arg, f.limits.MessageBytes, f.session.now.options.QualifyDomain)
	if refused != nil {
		if refused.Code() == 552 { // SIZE
			f.metrics.hit(limitSize)
		}
		return refused
	}
	f.pass("MAIL FROM:<" + f.exchange.path.address + ">")
	return nil
}

func (f *filter) rcpt(arg string) (refused *reply.Reply) {
	f.exchange.path, refused = parseRcpt(arg, f.session.utf8, f.session.now.options.QualifyDomain)
	switch {
	case refused != nil && f.session.open:
		return refused
	case !f.session.open: // go-smtp says 502, which is for commands that do not exist
		return reply.BadSequence("MAIL comes first")
	case len(f.session.envelope.Recipients) >= f.limits.Recipients:
		f.metrics.hit(limitRecipients)
		return reply.TooManyRecipients()
	}
	f.pass("RCPT TO:<" + f.exchange.path.address + ">")
	return nil
}

// data waits for memory, as much as the client announced, before the client may
// send. It reserves only a beginning: what was only announced must not keep others
// from sending.
func (f *filter) data(arg string) *reply.Reply {
	switch {
	case arg != "":
		return reply.BadArgument("DATA takes no argument")
	case !f.session.ready(): // RFC 5321 section 4.1.4; go-smtp says 502
		return reply.BadSequence("no recipients")
	}
	if r := f.admit(f.session.size); r != nil {
		return r
	}
	f.pass("DATA")
	return nil
}

// bdat takes one chunk (RFC 3030).
func (f *filter) bdat(arg string) error {
	size, last, ok := parseChunk(arg)
	if !ok {
		// Nobody knows how much of what follows is the chunk.
		f.hangUp(lingerTime)
		return f.answer(reply.BadArgument("BDAT needs a size"))
	}
	chunks := f.chunks
	switch {
	case chunks != nil:
	case f.session.ready():
		chunks = f.newContent()
	default: // the chunk comes all the same, and must be read
		chunks = f.newContent()
		chunks.refuse("", reply.BadSequence("no recipients"))
	}
	f.startMessage()
	if err := chunks.readChunk(f.in, size); err != nil {
		return f.refuse(f.interrupted(err, chunks))
	}
	switch {
	case !f.session.ready():
		f.endMessage()
		return f.answer(chunks.refusal)
	case chunks.refusal != nil && !last:
		// The transaction is over; RSET tells go-smtp.
		if chunks.limit != "" {
			f.metrics.hit(chunks.limit)
		}
		f.chunks = nil
		f.endMessage()
		if err := f.answer(chunks.refusal); err != nil {
			return err
		}
		f.exchange.instead = []answer{{}}
		f.pass("RSET")
		return nil
	case last:
		f.chunks = chunks
		f.exchange.instead = []answer{{}} // of the 354
		f.pass("DATA")
		return nil
	}
	f.chunks = chunks
	return f.answer(reply.ChunkTaken(size))
}

// parseChunk reads "size [LAST]".
func parseChunk(arg string) (size int64, last, ok bool) {
	args := strings.Fields(arg)
	if len(args) == 0 || len(args) > 2 || strings.Trim(args[0], "0123456789") != "" {
		return 0, false, false
	}
	last = len(args) == 2
	if last && !strings.EqualFold(args[1], "LAST") {
		return 0, false, false
	}
	size, err := strconv.ParseInt(args[0], 10, 64)
	return size, last, err == nil
}

func (f *filter) newContent() *content {
	f.coming = &content{
		maxBytes: f.limits.MessageBytes, maxLine: int(f.limits.LineBytes), hint: f.session.size,
		header:  header{max: f.limits.HeaderBytes},
		reserve: func(kind budget.Kind, n int64) *reply.Reply { return f.hold(f.ctx, kind, n) },
	}
	return f.coming
}

// message returns the content of the message for which go-smtp has called the
// session, or why there is none.
func (f *filter) message() ([]byte, *reply.Reply) {
	c := f.chunks
	f.chunks = nil
	f.pass(".") // all that go-smtp reads of it
	if c == nil {
		c = f.newContent()
		f.startMessage()
		_, _ = f.in.Peek(1) // readData meets its error
		c.hint = max(c.hint, int64(f.arrived()))
		if err := c.readData(f.in); err != nil {
			return nil, f.interrupted(err, c)
		}
	} else {
		c.finish()
	}
	f.endMessage()
	data, r := c.whole()
	if c.limit != "" {
		f.metrics.hit(c.limit)
	}
	return data, r
}

// interrupted hangs up in the middle of a message: what the client still sends is
// the rest of the message, and must not be taken for commands.
func (f *filter) interrupted(err error, c *content) *reply.Reply {
	f.chunks = nil
	if errors.Is(err, errDrained) {
		f.hangUp(lingerTime)
		return c.refusal
	}
	if r := f.lost(err); r != nil {
		return r
	}
	return reply.Interrupted().Because(err)
}

// startTLS answers STARTTLS (RFC 3207). go-smtp does not see it: TLS is under the
// filter, so that every limit holds inside it.
func (f *filter) startTLS(arg string) error {
	switch {
	case f.secure:
		return f.answer(reply.BadSequence("TLS is active already"))
	case f.listener.config.TLS.Mode != StartTLS:
		return f.answer(reply.NotImplemented("STARTTLS"))
	case arg != "":
		return f.answer(reply.BadArgument("STARTTLS takes no argument"))
	case f.session.open:
		return f.answer(reply.BadSequence("a transaction is open"))
	case f.arrived() > 0:
		// Somebody put this here, in the clear, to have it taken for something
		// said inside TLS (CVE-2011-0411 is the best known of its kind).
		f.hangUp(lingerTime)
		return f.answer(reply.BadSequence("nothing may follow STARTTLS"))
	}
	if err := f.answer(reply.ReadyForTLS()); err != nil {
		return err
	}
	if err := f.handshake(); err != nil {
		f.broken = err // there is no way left to say anything
		f.hangUp(0)
		return io.EOF
	}
	f.greeted = false // section 4.2: what was said before does not count
	f.session.restart()
	return nil
}

// passwordsAllowed reports whether a password may be sent now.
func (f *filter) passwordsAllowed() bool { return f.secure || f.session.now.config.AuthWithoutTLS }

// login answers AUTH (RFC 4954). go-smtp does not see it: it takes AUTH inside
// a transaction, and calls bad base64 a temporary failure.
func (f *filter) login(arg string) error {
	s := f.session
	s.refresh()
	switch {
	case !s.canLogIn():
		return f.answer(reply.NotImplemented("AUTH"))
	case !f.greeted:
		return f.answer(reply.BadSequence("say EHLO first"))
	case s.client.User != "":
		return f.answer(reply.BadSequence("authenticated already"))
	case s.open:
		return f.answer(reply.BadSequence("a transaction is open"))
	case !f.passwordsAllowed():
		f.metrics.refusedBy(ruleTLS)
		return f.answer(reply.AuthNeedsTLS())
	}
	said, err := auth.Converse(arg, f.challenge)
	switch {
	case err == nil:
		return f.check(said)
	case errors.Is(err, auth.ErrMechanism):
		return f.answer(reply.UnknownMechanism())
	case errors.Is(err, auth.ErrCancelled):
		return f.answer(reply.LoginCancelled())
	case errors.Is(err, auth.ErrBase64), errors.Is(err, auth.ErrMalformed):
		return f.answer(reply.BadLogin())
	}
	return err // of the connection; the client was told
}

// challenge asks for a line of a login, which is no command.
func (f *filter) challenge(text string) (string, error) {
	if err := f.write("334 " + text); err != nil {
		return "", err
	}
	line, err := f.readCommand(true, func([]byte) bool { return true })
	f.exchange.verb = "AUTH"
	return line, err
}

// check answers a login. It keeps a client waiting that was wrong.
func (f *filter) check(said auth.Credentials) error {
	s := f.session
	result, err := s.now.options.Users.Check(f.ctx, s.client.Addr.Addr(), said)
	if err != nil {
		return f.answer(reply.From(err))
	}
	if result.User != nil {
		f.metrics.logins.WithLabelValues("right").Inc()
		s.user, s.client.User = result.User, result.User.Name
		f.classify()
		f.log.Info("logged in", "user", result.User.Name)
		return f.answer(reply.LoggedIn())
	}
	r, label := reply.WrongPassword(), "wrong"
	if result.ShutOut {
		f.metrics.hit(limitLogins)
		r, label = reply.TooManyFailures(), "shut_out"
	}
	f.metrics.logins.WithLabelValues(label).Inc()
	if result.Known { // else the name may be a password in the wrong place
		r = r.Because(errors.New("as user " + said.User))
	}
	s.server.pause(f.ctx, result.Delay)
	return f.sayOf(r, "login failed", r.String()) // docs/access.md has an expression for it
}

// extensions are what EHLO offers besides go-smtp's own.
func (f *filter) extensions() (list []string) {
	if f.listener.config.TLS.Mode == StartTLS && !f.secure {
		list = append(list, "250-STARTTLS")
	}
	if f.session.canLogIn() && f.passwordsAllowed() {
		list = append(list, "250-AUTH "+strings.Join(auth.Mechanisms(), " "))
	}
	return list
}

// replied passes on a reply of go-smtp's, or what the client is told instead.
func (f *filter) replied(lines []string) error {
	if !f.begun { // it is the greeting
		f.broken = f.begin()
		if f.broken == nil && f.early() {
			f.hangUp(lingerTime)
			return f.answer(reply.TooEarly("the greeting"))
		}
	}
	x, positive := &f.exchange, lines[0] != "" && (lines[0][0] == '2' || lines[0][0] == '3')
	if len(x.instead) > 0 {
		one := x.instead[0]
		x.instead = x.instead[1:]
		switch r := one.reply; {
		case r == nil && positive:
			return nil
		case r != nil && one.rcpt != "":
			x.path.address = one.rcpt
			return f.sayOf(r, "refused", fmt.Sprintf("%d %s <%s> %s", r.Code(), r.Enhanced(), one.rcpt, r.Text()))
		case r != nil:
			return f.answer(r)
		}
	}
	if positive && (x.verb == "HELO" || x.verb == "EHLO" || x.verb == "LHLO") {
		f.greeted = true
		if i := slices.Index(lines, "250-PIPELINING"); i > 0 { // the first extension that go-smtp names
			lines = slices.Insert(lines, i, f.extensions()...)
		}
	}
	return f.sayOf(nil, "refused", lines...)
}

// answer replies in place of go-smtp.
func (f *filter) answer(r *reply.Reply) error { return f.sayOf(r, "refused", r.String()) }

// sayOf sends a reply, or ends the connection instead when the client has been wrong
// too often. r is the reply that the lines are made of, nil for go-smtp's. A
// negative one is logged, with event as its message.
func (f *filter) sayOf(r *reply.Reply, event string, lines ...string) error {
	last := lines[len(lines)-1]
	if limit := f.counts.replied(f.exchange.verb, last, r, f.limits); limit != "" {
		last = f.over(limit, reply.TooManyErrors()).String()
		lines = []string{last}
	}
	if strings.HasPrefix(last, "421") { // RFC 5321 section 3.8: the server closes after it
		f.hangUp(0)
	}
	f.metrics.replied(last)
	if last[0] == '4' || last[0] == '5' {
		f.record(r, event, last)
	}
	return f.write(lines...)
}

// record logs a refusal. Of a command's arguments it logs only addresses: others
// can hold secrets.
func (f *filter) record(r *reply.Reply, event, line string) {
	attrs := []any{"command", f.exchange.verb, "reply", printable(reply.Logged(line))}
	if f.exchange.path.address != "" {
		attrs = append(attrs, "address", f.exchange.path.address)
	}
	if r != nil && r.Unwrap() != nil {
		attrs = append(attrs, slog.Any("cause", r.Unwrap()))
	}
	f.log.Info(event, attrs...)
}
