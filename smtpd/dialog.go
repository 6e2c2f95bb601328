package smtpd

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strconv"
	"strings"
	"time"

	"github.com/smtp2rest/smtp2rest/smtpd/reply"
)

// maxLoginLine: RFC 4954 section 4, for AUTH and for what answers a challenge,
// with the line end.
const maxLoginLine = 12_288

// earlyTime is how long a client is watched that is not to say anything now.
const earlyTime = time.Millisecond

// dialog is where in the protocol a connection is.
//
// Commands go to go-smtp one by one, cleaned. Those that it would answer
// wrongly are answered here. The content of a message is read here too, when
// go-smtp, having said 354, calls the session: the session takes it with
// message, and go-smtp then finds only the final dot. BDAT never reaches
// go-smtp, whose BDAT takes a truncated chunk for a complete message and runs
// two transactions at once after a RSET: chunks are collected here, and the
// last one goes to go-smtp as a DATA whose 354 the client does not see.
//
// STARTTLS never reaches go-smtp either: TLS belongs under the wire, see
// secure.go.
type dialog struct {
	verb   string       // the command under way
	path   pathCommand  // of the MAIL or RCPT under way
	chunks *content     // the message that comes by BDAT, nil when none does
	hidden bool         // go-smtp's next reply, if it is positive, is not for the client
	errors int          // wrong commands since the last message taken
	wrong  int          // wrong recipients since the last right one
	empty  int          // commands that bring no mail nearer, since the last message taken
	before int          // commands of a client that may not send
	ended  int          // messages that came to their end on this connection
	later  int          // recipients told to come in a next transaction, since the last message taken
	login  bool         // a login failed
	cause  *reply.Reply // what the session answered, with its private cause
	each   []verdict    // what go-smtp's next replies are to be, one for each recipient
}

// verdict is what became of one recipient of a message.
type verdict struct {
	rcpt  string
	reply *reply.Reply
}

// next waits for commands until there is one for go-smtp to answer. go-smtp
// catches panics in what it calls for a command, but not here.
func (w *wire) next() (err error) {
	defer func() {
		if value := recover(); value != nil {
			err = w.refuse(w.session.recovered(value))
		}
	}()
	for {
		w.setIdle(w.dialog.chunks == nil)
		line, err := w.readLine(false)
		w.setIdle(false)
		if err == nil {
			err = w.command(line)
		}
		if err != nil {
			return err
		}
		switch {
		case len(w.out) > 0:
			return nil
		case w.hungUp:
			return io.EOF
		}
	}
}

// readLine returns a command, or a line of a login, without its line end, which
// may be a bare LF: programs that write "\n" to a socket are many, and nothing
// can hide behind it, as it ends every command, MAIL and RCPT as well. A line
// that the client did not finish is no command.
func (w *wire) readLine(login bool) (string, error) {
	w.dialog.verb, w.dialog.path = "", pathCommand{}
	if err := w.ending(); err != nil {
		return "", w.refuse(w.lost(err))
	}
	w.timeLine(true)
	p, err := w.in.ReadSlice('\n')
	if errors.Is(err, bufio.ErrBufferFull) && (login || isAuth(p)) { // the buffer's size is Limits.CommandBytes
		p, err = w.readLong(p)
	}
	w.timeLine(false)
	w.confirm(err)
	switch {
	case errors.Is(err, bufio.ErrBufferFull):
		w.metrics.hit(limitCommand)
		w.hangUpOn()
		return "", w.refuse(reply.LineTooLong())
	case err != nil:
		return "", w.refuse(w.lost(err))
	}
	return strings.TrimRight(string(p), " \t\r\n"), nil
}

func isAuth(line []byte) bool {
	return len(line) > len("AUTH ") && strings.EqualFold(string(line[:len("AUTH ")]), "AUTH ")
}

// readLong reads on in a line of a login of which only the begin is in the
// buffer.
func (w *wire) readLong(begin []byte) ([]byte, error) {
	line := append(make([]byte, 0, maxLoginLine), begin...)
	for {
		more, err := w.in.ReadSlice('\n')
		if len(line)+len(more) > maxLoginLine {
			return nil, bufio.ErrBufferFull
		}
		line = append(line, more...)
		if !errors.Is(err, bufio.ErrBufferFull) {
			return line, err
		}
	}
}

// refuse answers with r, if there is one, and ends go-smtp's reading.
func (w *wire) refuse(r *reply.Reply) error {
	if r != nil {
		_ = w.answer(r) // the connection ends either way
	}
	return io.EOF
}

// command deals with a command or gives it to go-smtp.
func (w *wire) command(line string) error {
	verb, arg := cutCommand(line)
	w.dialog.verb, w.dialog.path, w.dialog.cause, w.dialog.login = verb, pathCommand{}, nil, false
	if isHTTP(verb, line) {
		// A web page can have a browser post to us: the mail in what it posts
		// must not be read as commands.
		w.dialog.verb = ""
		w.hangUpOn()
		return w.answer(reply.WrongProtocol())
	}
	if strings.ContainsFunc(line, func(r rune) bool { return r < ' ' && r != '\t' || r == 0x7f }) {
		w.dialog.verb = ""
		return w.answer(reply.BadCommand("control characters in a command"))
	}
	if w.tooManyBeforeLogin(verb) {
		return w.answer(reply.TooManyErrors())
	}
	switch verb {
	case "HELO", "EHLO", "LHLO":
		// RFC 2920 section 3.1: nothing may follow before the reply. What does
		// was not written by who speaks to us, but by who had them send it.
		if w.early() {
			w.hangUpOn()
			return w.answer(reply.TooEarly("the reply to " + verb))
		}
		return w.passIdle(verb, arg)
	case "RSET", "NOOP", "VRFY", "QUIT":
		return w.passIdle(verb, arg)
	case "MAIL", "RCPT", "DATA":
		if r := w.transaction(verb, arg); r != nil {
			return w.answer(r)
		}
		return nil
	case "BDAT":
		return w.bdat(arg)
	case "STARTTLS":
		return w.startTLS(arg)
	case "AUTH":
		return w.login(arg)
	case "HELP", "EXPN", "ETRN", "TURN":
		return w.answer(reply.NotImplemented(verb))
	}
	w.dialog.verb = ""
	return w.answer(reply.BadCommand("command not recognized"))
}

// passIdle passes on a command that brings no mail nearer, unless there were too
// many of them.
func (w *wire) passIdle(verb, arg string) error {
	if w.dialog.empty++; w.dialog.empty > w.limits.IdleCommands && verb != "QUIT" {
		w.metrics.hit(limitIdleCommands)
		w.linger = lingerTime
		return w.answer(reply.TooManyErrors())
	}
	w.pass(strings.TrimSpace(verb + " " + arg))
	return nil
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

// early reports whether the client has sent something while it is our turn, or
// does so in a moment: of what comes in one piece the second half may still be
// on its way.
func (w *wire) early() bool {
	if w.in.Buffered() > 0 {
		return true
	}
	w.mu.Lock()
	w.clock.lineEnd = time.Now().Add(earlyTime)
	w.mu.Unlock()
	_, err := w.in.Peek(1)
	w.timeLine(false)
	return err == nil
}

func cutCommand(line string) (verb, arg string) {
	i := strings.IndexAny(line, " \t")
	if i < 0 {
		return strings.ToUpper(line), ""
	}
	return strings.ToUpper(line[:i]), strings.Trim(line[i:], " \t")
}

// pass gives a line to go-smtp.
func (w *wire) pass(line string) { w.out = []byte(line + "\r\n") }

// transaction passes MAIL, RCPT and DATA on in the one form that go-smtp
// cannot misread, or returns why not.
func (w *wire) transaction(verb, arg string) (refused *reply.Reply) {
	if w.dialog.chunks != nil {
		return reply.BadSequence(verb + " is not allowed between chunks")
	}
	switch verb {
	case "MAIL":
		refused = w.mail(arg)
	case "RCPT":
		refused = w.rcpt(arg)
	case "DATA":
		refused = w.data(arg)
	}
	return refused
}

func (w *wire) mail(arg string) (refused *reply.Reply) {
	switch {
	case !w.greeted:
		return reply.BadSequence("say EHLO first")
	case w.session.open:
		return reply.BadSequence("a transaction is open already")
	case w.dialog.ended >= w.limits.MessagesPerConnection:
		w.metrics.hit(limitMessages)
		w.linger = lingerTime
		return reply.TooManyMessages()
	}
	w.dialog.path, refused = parseMail(arg, w.limits.MessageBytes, w.session.qualify)
	if refused != nil {
		if refused.Code() == 552 { // SIZE
			w.metrics.hit(limitSize)
		}
		return refused
	}
	w.pass("MAIL FROM:<" + w.dialog.path.address + ">")
	return nil
}

func (w *wire) rcpt(arg string) (refused *reply.Reply) {
	w.dialog.path, refused = parseRcpt(arg, w.session.utf8, w.session.qualify)
	switch {
	case refused != nil && w.session.open:
		return refused
	case !w.session.open: // go-smtp says 502, which is for commands that do not exist
		return reply.BadSequence("MAIL comes first")
	case len(w.session.envelope.Recipients) >= w.limits.Recipients:
		w.metrics.hit(limitRecipients)
		return reply.TooManyRecipients()
	}
	w.pass("RCPT TO:<" + w.dialog.path.address + ">")
	return nil
}

// data makes sure that there is memory before the client is let on, as far as
// it told how much it is going to be. It holds no more of it than a beginning:
// what was only announced must not keep others from sending.
func (w *wire) data(arg string) *reply.Reply {
	switch {
	case arg != "":
		return reply.BadArgument("DATA takes no argument")
	case !w.session.ready(): // RFC 5321 section 4.1.4; go-smtp says 502
		return reply.BadSequence("no recipients")
	}
	if r := w.admit(w.session.size); r != nil {
		return r
	}
	w.pass("DATA")
	return nil
}

// bdat takes one chunk (RFC 3030).
func (w *wire) bdat(arg string) error {
	size, last, ok := parseChunk(arg)
	if !ok {
		// Nobody knows how much of what follows is the chunk.
		w.hangUpOn()
		return w.answer(reply.BadArgument("BDAT needs a size"))
	}
	chunks := w.dialog.chunks
	switch {
	case chunks != nil:
	case w.session.ready():
		chunks = w.newContent()
	default: // the chunk comes all the same, and must be read
		chunks = w.newContent()
		chunks.refuse("", reply.BadSequence("no recipients"))
	}
	w.startMessage()
	if err := chunks.readChunk(w.in, size); err != nil {
		return w.refuse(w.interrupted(err, chunks))
	}
	switch {
	case !w.session.ready():
		w.endMessage()
		return w.answer(chunks.refusal)
	case chunks.refusal != nil && !last:
		// The transaction is over; RSET tells go-smtp.
		if chunks.limit != "" {
			w.metrics.hit(chunks.limit)
		}
		w.dialog.hidden = true
		w.dialog.chunks = nil
		w.endMessage()
		if err := w.answer(chunks.refusal); err != nil {
			return err
		}
		w.pass("RSET")
		return nil
	case last:
		w.dialog.hidden = true
		w.dialog.chunks = chunks
		w.pass("DATA")
		return nil
	}
	w.dialog.chunks = chunks
	return w.answer(reply.ChunkTaken(size))
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

func (w *wire) newContent() *content {
	w.coming = &content{
		maxBytes: w.limits.MessageBytes, maxLine: w.limits.LineBytes, hint: w.session.size,
		header: header{max: w.limits.HeaderBytes}, reserve: w.reserveContent,
	}
	return w.coming
}

// message returns the content of the message for which go-smtp called the
// session, or why there is none.
func (w *wire) message() ([]byte, *reply.Reply) {
	c := w.dialog.chunks
	w.dialog.chunks = nil
	w.out = []byte(".\r\n") // all that go-smtp is to read of it
	if c == nil {
		c = w.newContent()
		w.startMessage()
		if err := c.readData(w.in); err != nil {
			return nil, w.interrupted(err, c)
		}
	} else {
		c.finish()
	}
	w.endMessage()
	data, r := c.whole()
	if c.limit != "" {
		w.metrics.hit(c.limit)
	}
	return data, r
}

// interrupted hangs up in the middle of a message. What else the client sends
// is the rest of the message, and must not be taken for commands.
func (w *wire) interrupted(err error, c *content) *reply.Reply {
	w.dialog.chunks = nil
	if errors.Is(err, errDrained) {
		w.hangUpOn()
		return c.refusal
	}
	if r := w.lost(err); r != nil {
		return r
	}
	return reply.Interrupted().Because(err)
}

// answer replies in place of go-smtp.
func (w *wire) answer(r *reply.Reply) error {
	w.dialog.cause = r
	return w.sendCounted(r.String())
}

// replied takes a line of go-smtp's.
func (w *wire) replied(line string) error {
	if !w.begun { // the line is the greeting
		w.broken = w.begin()
		if w.broken == nil && w.early() {
			w.hangUpOn()
			return w.answer(reply.TooEarly("the greeting"))
		}
	}
	if w.dialog.hidden {
		w.dialog.hidden = false
		if line[0] == '2' || line[0] == '3' {
			return nil
		}
	}
	if d := &w.dialog; len(d.each) > 0 {
		one := d.each[0]
		d.each, d.cause, d.path.address = d.each[1:], one.reply, one.rcpt
		line = fmt.Sprintf("%d %s <%s> %s", one.reply.Code(), one.reply.Enhanced(), one.rcpt, one.reply.Text())
	}
	switch w.dialog.verb {
	case "HELO", "EHLO", "LHLO":
		w.greeted = w.greeted || line[0] == '2'
		if line == "250-PIPELINING" { // the first extension that go-smtp names
			for _, name := range w.extensions() {
				_ = w.send("250-" + name) // not the last line: nothing is written yet
			}
		}
	case "MAIL", "RCPT":
		// go-smtp promises that the recipient "gets this", which nobody knows yet.
		if line[0] == '2' {
			line = reply.Ok(w.dialog.verb).String()
		}
	}
	return w.sendCounted(line)
}

// sendCounted sends a line, or the end of the connection in its place when the
// client has been wrong too often.
func (w *wire) sendCounted(line string) error {
	if !isLastLine(line) {
		return w.send(line)
	}
	if limit := w.tooManyErrors(line); limit != "" {
		w.metrics.hit(limit)
		w.linger = lingerTime
		line = reply.TooManyErrors().String()
	}
	if strings.HasPrefix(line, "421") { // RFC 5321 section 3.8: the server closes after it
		w.hangUp()
	}
	w.metrics.replied(line)
	w.record(line)
	return w.send(line)
}

// tooManyErrors counts, and returns the limit that was met, if any. Verdicts
// about content are no errors of the client's, and wrong recipients have a count
// of their own. Whoever is told to come later and tries again at once brings no
// mail nearer. Some clients name thousands of recipients at once, and want to
// hear of each whether it has to come in a next transaction.
func (w *wire) tooManyErrors(line string) limit {
	d := &w.dialog
	policy := strings.HasPrefix(line, "55")
	switch {
	case strings.HasPrefix(line, "421"):
		return "" // the end already
	case d.verb == "RCPT" && line[0] == '2':
		d.wrong = 0
	case d.verb == "RCPT" && policy:
		d.wrong++
	case policy && (d.verb == "DATA" || d.verb == "BDAT"):
	case line[0] == '5':
		d.errors++
	case d.cause != nil && d.cause.String() == reply.TooManyRecipients().String():
		d.later++
	case line[0] == '4':
		d.empty++
	}
	switch {
	case line[0] == '4' && (d.empty > w.limits.IdleCommands || d.later > 10*w.limits.IdleCommands):
		return limitIdleCommands
	case line[0] != '5':
	case d.errors >= w.limits.WrongCommands:
		return limitWrongCommands
	case d.wrong >= w.limits.WrongRecipients:
		return limitWrongRecipients
	}
	return ""
}

// taken forgives earlier errors: a message went through.
func (w *wire) taken() { w.dialog.errors, w.dialog.wrong, w.dialog.empty, w.dialog.later = 0, 0, 0, 0 }

// record logs a refusal. Of commands only addresses are logged: others can
// hold secrets.
func (w *wire) record(line string) {
	if line[0] != '4' && line[0] != '5' {
		return
	}
	attrs := []any{"command", w.dialog.verb, "reply", printable(reply.Logged(line))}
	if w.dialog.path.address != "" {
		attrs = append(attrs, "address", w.dialog.path.address)
	}
	if cause := w.dialog.cause; cause != nil && cause.Unwrap() != nil {
		attrs = append(attrs, slog.Any("cause", cause.Unwrap()))
	}
	if w.dialog.login {
		w.log.Info("login failed", attrs...) // docs/access.md has an expression for it
		return
	}
	w.log.Info("refused", attrs...)
}
