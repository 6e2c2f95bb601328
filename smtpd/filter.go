package smtpd

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/smtp2rest/smtp2rest/smtpd/auth"
	"github.com/smtp2rest/smtp2rest/smtpd/reply"
)

// A filter stands between a client's connection and go-smtp, for which it is the
// connection: a net.Conn whose Read gives one command at a time, and whose Write
// takes the replies. As go-smtp asks for more only when it has answered, the
// filter always knows where in the protocol the client is, and decides what
// go-smtp must not decide: limits, the order of commands, addresses, STARTTLS,
// AUTH, the end of a message, and the form of every reply.
//
// The content of a message is read here too, when go-smtp, having said 354,
// calls the session: the session takes it with message, and go-smtp then finds
// only the final dot. BDAT never reaches go-smtp, whose BDAT takes a truncated
// chunk for a complete message and runs two transactions at once after a RSET:
// chunks are collected here, and the last one goes to go-smtp as a DATA whose
// 354 the client does not see.
type filter struct {
	*conn
	session   *session
	serverLog *slog.Logger
	move      func(to netip.AddrPort, c class) *reply.Reply // counts the client elsewhere, or says why not
	classed   func(class)                                   // counts it as of another class
	pause     func(time.Duration)                           // not beyond the beginning of the server's end, nor when dropped

	begun    bool // what comes before the greeting is done
	greeted  bool // the client said EHLO, and inside TLS again
	exchange exchange
	chunks   *content // the message that comes by BDAT, nil when none does
	counts   counts
}

// An exchange is one command and its reply: what go-smtp is told of the one, and
// what the client hears of the other.
type exchange struct {
	verb    string      // "" for what is no command
	path    pathCommand // of MAIL and RCPT
	told    []byte      // what go-smtp is to read next
	instead []answer    // what the client hears in place of go-smtp's next replies
	said    []byte      // go-smtp's reply, as far as it has come
}

// An answer takes the place of one of go-smtp's replies.
type answer struct {
	reply *reply.Reply // nil for none: a positive reply is not for the client
	rcpt  string       // whom it is about, where each recipient has one
}

// begin does, on the connection's own goroutine, what comes before the
// greeting: a client that keeps us waiting there keeps nobody else waiting.
func (f *filter) begin() error {
	f.begun = true
	if f.proxied {
		if err := f.meetProxy(); err != nil {
			return err
		}
	}
	if f.tlsMode == ImplicitTLS {
		return f.handshake()
	}
	return nil
}

// meetProxy learns from the proxy who the client is.
func (f *filter) meetProxy() error {
	addr, err := f.readProxyHeader()
	if err != nil {
		return err
	}
	s := f.session
	proxy := s.client.Addr
	s.client.Addr = addr
	if addr.IsValid() {
		if r := f.move(addr, s.class()); r != nil {
			f.log.Info("refused", "reply", r.String(), "for", addr.String())
			f.sayInClear(r)
			return r
		}
	}
	f.classify()
	f.log = clientLog(f.serverLog, s.client).With("proxy", proxy.String())
	s.log = f.log
	return nil
}

// firstClass is what a client that has just come may do.
func (f *filter) firstClass() class {
	if f.proxied {
		return unknown
	}
	c := f.session.class()
	f.setStranger(c == stranger)
	return c
}

// classify takes note of what the client may do now.
func (f *filter) classify() {
	c := f.session.class()
	if c != f.seat.class {
		f.classed(c)
	}
	f.setStranger(c == stranger)
}

// Read gives go-smtp its next input.
func (f *filter) Read(p []byte) (int, error) {
	if f.isClosed() {
		return 0, net.ErrClosed // after QUIT: what the client sent behind it is not read
	}
	if len(f.exchange.told) == 0 {
		if f.hungUp {
			return 0, io.EOF
		}
		if err := f.next(); err != nil {
			return 0, io.EOF // on any other error go-smtp would write a reply
		}
	}
	n := copy(p, f.exchange.told)
	f.exchange.told = f.exchange.told[n:]
	return n, nil
}

// Write takes go-smtp's replies, and passes on what the client is to hear.
func (f *filter) Write(p []byte) (int, error) {
	f.exchange.said = append(f.exchange.said, p...)
	for {
		lines, rest := cutReply(f.exchange.said)
		if lines == nil {
			return len(p), nil
		}
		f.exchange.said = rest
		if err := f.replied(lines); err != nil {
			return 0, err
		}
	}
}

// cutReply returns the lines of the first reply, nil if it is not whole yet.
func cutReply(said []byte) (lines []string, rest []byte) {
	for {
		line, after, found := bytes.Cut(said, []byte("\r\n"))
		if !found {
			return nil, said
		}
		lines, said = append(lines, string(line)), after
		if len(line) < 4 || line[3] == ' ' {
			return lines, said
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
		case len(f.exchange.told) > 0:
			return nil
		case f.hungUp:
			return io.EOF
		}
	}
}

// readCommand returns a command, or a line of a login, without its line end,
// which may be a bare LF: programs that write "\n" to a socket are many, and
// nothing can hide behind it, as it ends every command, MAIL and RCPT as well. A
// line that the client did not finish is no command.
func (f *filter) readCommand(idle bool, isLong func([]byte) bool) (string, error) {
	f.exchange = exchange{}
	f.setIdle(idle)
	defer f.setIdle(false)
	if err := f.ending(); err != nil {
		return "", f.refuse(f.lost(err))
	}
	p, err := f.readLine(isLong)
	f.confirm(err)
	switch {
	case errors.Is(err, bufio.ErrBufferFull):
		f.metrics.hit(limitCommand)
		f.hangUpOn()
		return "", f.refuse(reply.LineTooLong())
	case err != nil:
		return "", f.refuse(f.lost(err))
	}
	return strings.TrimRight(string(p), " \t\r\n"), nil
}

func isAuth(line []byte) bool {
	return len(line) > len("AUTH ") && strings.EqualFold(string(line[:len("AUTH ")]), "AUTH ")
}

// refuse answers with r, if there is one, and ends go-smtp's reading.
func (f *filter) refuse(r *reply.Reply) error {
	if r != nil {
		_ = f.answer(r) // the connection ends either way
	}
	return io.EOF
}

// command deals with a command or gives it to go-smtp.
func (f *filter) command(line string) error {
	verb, arg := cutCommand(line)
	switch {
	case isHTTP(verb, line):
		// A web page can have a browser post to us: the mail in what it posts
		// must not be read as commands.
		f.hangUpOn()
		return f.answer(reply.WrongProtocol())
	case strings.ContainsFunc(line, func(r rune) bool { return r < ' ' && r != '\t' || r == 0x7f }):
		return f.answer(reply.BadCommand("control characters in a command"))
	}
	f.exchange.verb = verb
	if f.tooManyBeforeLogin() {
		return f.answer(reply.TooManyErrors())
	}
	switch verb {
	case "HELO", "EHLO", "LHLO":
		// RFC 2920 section 3.1: nothing may follow before the reply. What does
		// was not written by who speaks to us, but by who had them send it.
		if f.early() {
			f.hangUpOn()
			return f.answer(reply.TooEarly("the reply to " + verb))
		}
		return f.tellIdle(arg)
	case "RSET", "NOOP", "VRFY", "QUIT":
		return f.tellIdle(arg)
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

// isHTTP tells a request line, whatever its method, and a header field of HTTP.
// A client that sends a mail after DATA was refused ends here as well.
func isHTTP(verb, line string) bool {
	switch verb {
	case "GET", "POST", "PUT", "CONNECT", "OPTIONS", "HEAD", "DELETE", "PATCH", "TRACE":
		return true
	}
	last := line[strings.LastIndexAny(line, " \t")+1:]
	return strings.Contains(verb, ":") || len(last) >= len("HTTP/") && strings.EqualFold(last[:len("HTTP/")], "HTTP/")
}

// tell gives go-smtp a command.
func (f *filter) tell(line string) { f.exchange.told = []byte(line + "\r\n") }

// tellIdle passes on a command that brings no mail nearer, unless there were too
// many of them.
func (f *filter) tellIdle(arg string) error {
	verb := f.exchange.verb
	if f.counts.idle++; f.counts.idle > f.limits.IdleCommands && verb != "QUIT" {
		f.metrics.hit(limitIdleCommands)
		f.linger = lingerTime
		return f.answer(reply.TooManyErrors())
	}
	f.tell(strings.TrimSpace(verb + " " + arg))
	return nil
}

// transaction passes MAIL, RCPT and DATA on in the one form that go-smtp
// cannot misread, or returns why not.
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
		f.metrics.hit(limitMessages)
		f.linger = lingerTime
		return reply.TooManyMessages()
	}
	f.exchange.path, refused = parseMail(arg, f.limits.MessageBytes, f.session.qualify)
	if refused != nil {
		if refused.Code() == 552 { // SIZE
			f.metrics.hit(limitSize)
		}
		return refused
	}
	f.tell("MAIL FROM:<" + f.exchange.path.address + ">")
	return nil
}

func (f *filter) rcpt(arg string) (refused *reply.Reply) {
	f.exchange.path, refused = parseRcpt(arg, f.session.utf8, f.session.qualify)
	switch {
	case refused != nil && f.session.open:
		return refused
	case !f.session.open: // go-smtp says 502, which is for commands that do not exist
		return reply.BadSequence("MAIL comes first")
	case len(f.session.envelope.Recipients) >= f.limits.Recipients:
		f.metrics.hit(limitRecipients)
		return reply.TooManyRecipients()
	}
	f.tell("RCPT TO:<" + f.exchange.path.address + ">")
	return nil
}

// data makes sure that there is memory before the client is let on, as far as
// it told how much it is going to be. It holds no more of it than a beginning:
// what was only announced must not keep others from sending.
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
	f.tell("DATA")
	return nil
}

// bdat takes one chunk (RFC 3030).
func (f *filter) bdat(arg string) error {
	size, last, ok := parseChunk(arg)
	if !ok {
		// Nobody knows how much of what follows is the chunk.
		f.hangUpOn()
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
		f.tell("RSET")
		return nil
	case last:
		f.chunks = chunks
		f.exchange.instead = []answer{{}} // of the 354
		f.tell("DATA")
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
		header: header{max: f.limits.HeaderBytes}, reserve: f.reserveContent,
	}
	return f.coming
}

// message returns the content of the message for which go-smtp called the
// session, or why there is none.
func (f *filter) message() ([]byte, *reply.Reply) {
	c := f.chunks
	f.chunks = nil
	f.tell(".") // all that go-smtp is to read of it
	if c == nil {
		c = f.newContent()
		f.startMessage()
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

// interrupted hangs up in the middle of a message. What else the client sends
// is the rest of the message, and must not be taken for commands.
func (f *filter) interrupted(err error, c *content) *reply.Reply {
	f.chunks = nil
	if errors.Is(err, errDrained) {
		f.hangUpOn()
		return c.refusal
	}
	if r := f.lost(err); r != nil {
		return r
	}
	return reply.Interrupted().Because(err)
}

// startTLS answers STARTTLS (RFC 3207), which go-smtp does not see: TLS belongs
// under the filter, so that every limit holds inside it.
func (f *filter) startTLS(arg string) error {
	switch {
	case f.secure:
		return f.answer(reply.BadSequence("TLS is active already"))
	case f.tlsMode != StartTLS:
		return f.answer(reply.NotImplemented("STARTTLS"))
	case arg != "":
		return f.answer(reply.BadArgument("STARTTLS takes no argument"))
	case f.session.open:
		return f.answer(reply.BadSequence("a transaction is open"))
	case f.in.Buffered() > 0:
		// Whoever put this here, in the clear, wants it to be taken for
		// something said inside TLS (CVE-2011-0411 is the best known of its kind).
		f.hangUpOn()
		return f.answer(reply.BadSequence("nothing may follow STARTTLS"))
	}
	if err := f.answer(reply.ReadyForTLS()); err != nil {
		return err
	}
	if err := f.handshake(); err != nil {
		f.broken = err // there is no way left to say anything
		f.hangUp()
		return io.EOF
	}
	f.greeted = false // section 4.2: what was said before counts for nothing
	f.session.forget()
	return nil
}

// passwordsAllowed reports whether a password may travel as things are now.
func (f *filter) passwordsAllowed() bool { return f.secure || f.session.config.AuthWithoutTLS }

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
	return err // of the connection: everything was said
}

// challenge asks for a line of a login. What the client answers is no command.
func (f *filter) challenge(text string) (string, error) {
	if err := f.write("334 " + text); err != nil {
		return "", err
	}
	line, err := f.readCommand(true, func([]byte) bool { return true })
	f.exchange.verb = "AUTH"
	return line, err
}

// check gives a client's credentials to the users, and makes those who are
// wrong wait.
func (f *filter) check(said auth.Credentials) error {
	s := f.session
	v, err := s.users.Check(f.ctx, s.client.Addr.Addr(), said)
	if err != nil {
		return f.answer(reply.From(err))
	}
	if v.User != nil {
		f.metrics.logins.WithLabelValues("right").Inc()
		s.user, s.client.User = v.User, v.User.Name
		f.classify()
		f.log.Info("logged in", "user", v.User.Name)
		return f.answer(reply.LoggedIn())
	}
	r := reply.WrongPassword()
	result := "wrong"
	if v.ShutOut {
		f.metrics.hit(limitLogins)
		r, result = reply.TooManyFailures(), "shut_out"
	}
	f.metrics.logins.WithLabelValues(result).Inc()
	if v.Known { // else it may be a password in the wrong place
		r = r.Because(errors.New("as user " + said.User))
	}
	f.pause(v.Delay)
	return f.sayOf(r, "login failed", r.String()) // docs/access.md has an expression for it
}

// extensions are what EHLO offers besides go-smtp's own.
func (f *filter) extensions() (list []string) {
	if f.tlsMode == StartTLS && !f.secure {
		list = append(list, "250-STARTTLS")
	}
	if f.session.canLogIn() && f.passwordsAllowed() {
		list = append(list, "250-AUTH "+strings.Join(auth.Mechanisms(), " "))
	}
	return list
}

// replied takes a reply of go-smtp's.
func (f *filter) replied(lines []string) error {
	if !f.begun { // it is the greeting
		f.broken = f.begin()
		if f.broken == nil && f.early() {
			f.hangUpOn()
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

// sayOf sends a reply, or the end of the connection in its place when the client
// has been wrong too often. r is what the reply is made of, nil for go-smtp's; a
// negative one has a line in the log, by the name event.
func (f *filter) sayOf(r *reply.Reply, event string, lines ...string) error {
	last := lines[len(lines)-1]
	if limit := f.counts.met(f.exchange.verb, last, r, f.limits); limit != "" {
		f.metrics.hit(limit)
		f.linger = lingerTime
		last = reply.TooManyErrors().String()
		lines = []string{last}
	}
	if strings.HasPrefix(last, "421") { // RFC 5321 section 3.8: the server closes after it
		f.hangUp()
	}
	f.metrics.replied(last)
	if last[0] == '4' || last[0] == '5' {
		f.record(r, event, last)
	}
	return f.write(lines...)
}

// record logs a refusal. Of commands only addresses are logged: others can
// hold secrets.
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

// counts are of what a client does in vain.
type counts struct {
	errors      int // wrong commands since the last message taken
	recipients  int // wrong ones since the last right one
	idle        int // commands that bring no mail nearer, since the last message taken
	later       int // recipients told to come in a next transaction, since the last message taken
	beforeLogin int // commands of a client that may not send
	messages    int // that came to their end, on this connection
}

// taken forgives what was wrong: a message went through.
func (c *counts) taken() { c.errors, c.recipients, c.idle, c.later = 0, 0, 0, 0 }

// met counts a reply to a command by its last line, and returns the limit that was
// met, if any. What is decided about content is no error of the client's, and
// wrong recipients have a count of their own. Whoever is told to come later and
// tries again at once brings no mail nearer. Some clients name thousands of
// recipients at once, and want to hear of each whether it has to come in a next
// transaction.
func (c *counts) met(verb, line string, r *reply.Reply, l Limits) limit {
	policy := strings.HasPrefix(line, "55")
	switch {
	case strings.HasPrefix(line, "421"):
		return "" // the end already
	case verb == "RCPT" && line[0] == '2':
		c.recipients = 0
	case verb == "RCPT" && policy:
		c.recipients++
	case policy && (verb == "DATA" || verb == "BDAT"):
	case line[0] == '5':
		c.errors++
	case r != nil && r.String() == reply.TooManyRecipients().String():
		c.later++
	case line[0] == '4':
		c.idle++
	}
	switch {
	case line[0] == '4' && (c.idle > l.IdleCommands || c.later > 10*l.IdleCommands):
		return limitIdleCommands
	case line[0] != '5':
	case c.errors >= l.WrongCommands:
		return limitWrongCommands
	case c.recipients >= l.WrongRecipients:
		return limitWrongRecipients
	}
	return ""
}

// tooManyBeforeLogin counts the commands of a client that may not send: it has
// no more to say than it takes to log in.
func (f *filter) tooManyBeforeLogin() bool {
	if f.seat.class != stranger || f.exchange.verb == "QUIT" {
		return false
	}
	if f.counts.beforeLogin++; f.counts.beforeLogin <= f.limits.StrangerCommands {
		return false
	}
	f.metrics.hit(limitStrangerCommands)
	f.linger = lingerTime
	return true
}
