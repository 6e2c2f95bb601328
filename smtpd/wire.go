package smtpd

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/smtp2rest/smtp2rest/smtpd/budget"
	"github.com/smtp2rest/smtp2rest/smtpd/reply"
)

const (
	// maxReplyLine: RFC 5321 section 4.5.3.1.5, without the CRLF.
	maxReplyLine = 510

	// These bound what is read and thrown away before a connection is closed on
	// a client that may still be sending: closing with unread octets makes TCP
	// drop the reply that tells it why. An idle client is given less.
	lingerTime     = time.Second
	lingerTimeIdle = 100 * time.Millisecond
	lingerBytes    = 1 << 20
)

var (
	errStopping = errors.New("smtpd: stopping")
	errDropped  = errors.New("smtpd: dropped for another client")
)

// A wire is a connection as go-smtp sees it: a net.Conn whose Read gives one
// command line at a time, and whose Write takes the replies. As go-smtp asks
// for more only when it has answered, the wire always knows where in the
// protocol it is, and this is where the guards are: limits, time-outs, the end
// of a message, shutdown, and the form of every reply. The content of messages
// does not pass through go-smtp at all; see dialog.go.
//
// One goroutine, go-smtp's for this connection, owns a wire. Only stop and
// abort are called from others.
type wire struct {
	net.Conn          // what is read and written: the socket, or TLS on it
	socket   net.Conn // deadlines, and the hard end, are the socket's
	limits   Limits
	log      *slog.Logger
	session  *session
	onClose  func()
	port     *port               // by which the client came
	pause    func(time.Duration) // not beyond the beginning of the server's end, nor when dropped
	ctx      context.Context     // ends with the connection, when it is dropped, and with the Backend's
	forget   context.CancelFunc  // ends ctx

	tls       *tls.Config // of the listener, nil without
	tlsMode   TLSMode
	secure    bool                                          // inside TLS
	local     bool                                          // by a unix socket
	proxied   bool                                          // a proxy tells who the client is
	seat      seat                                          // the roster's
	move      func(to netip.AddrPort, c class) *reply.Reply // to another origin, or why not
	become    func(*wire, class)                            // tells the roster
	serverLog *slog.Logger
	begun     bool // what comes before the greeting is done
	greeted   bool // the client said EHLO, and inside TLS again

	in     *bufio.Reader // over fill
	out    []byte        // what go-smtp is to read next
	lines  []byte        // what go-smtp wrote of a line that is not whole yet
	unsent []byte        // lines of a reply that is not whole yet
	dialog dialog

	hungUp  bool          // go-smtp gets no more input and closes
	linger  time.Duration // how long the client is heard out when we close
	broken  error         // why nothing can be written any more
	pending *receipt      // of the message whose reply was written last

	metrics *metrics
	meter   *meter
	share   *budget.Share // of the memory, for the message under way
	coming  *content      // the message under way, while it is read

	mu        sync.Mutex
	stopping  bool
	dropped   bool // to make room for another client
	idle      bool // waiting for a command, with no message under way
	clock     clock
	closed    bool
	unwatched bool // watch must not read any more
}

// fill reads from the socket, each time with a fresh deadline: go-smtp's own
// is one for a whole message, which fails slow but steady clients.
func (w *wire) fill(p []byte) (int, error) {
	n, err := w.readOnce(p)
	for n == 0 && w.share.Pressed() { // woken to give way, or told so just before
		w.giveWay()
		n, err = w.readOnce(p)
	}
	if errors.Is(err, os.ErrDeadlineExceeded) {
		if end := w.ending(); end != nil {
			err = end
		}
	}
	return n, err
}

func (w *wire) readOnce(p []byte) (int, error) {
	if err := w.arm(); err != nil {
		return 0, err
	}
	if w.share.Pressed() {
		return 0, nil
	}
	n, err := w.Conn.Read(p)
	w.mu.Lock()
	w.clock.read(time.Now(), n)
	w.mu.Unlock()
	return n, err
}

type reader func([]byte) (int, error)

func (r reader) Read(p []byte) (int, error) { return r(p) }

func (w *wire) arm() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	switch {
	case w.dropped:
		return errDropped
	case w.stopping && w.idle:
		return errStopping
	}
	if w.unwatched {
		return os.ErrDeadlineExceeded
	}
	return w.socket.SetReadDeadline(w.clock.deadline(time.Now()))
}

// ending is why the connection ends now, nil if it does not.
func (w *wire) ending() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	switch {
	case w.dropped:
		return errDropped
	case w.stopping && w.idle:
		return errStopping
	}
	return nil
}

func (w *wire) isDropped() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.dropped
}

func (w *wire) setIdle(idle bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.idle = idle
}

// startMessage and endMessage bound the time in which a message is read, not
// that in which it is dealt with.
func (w *wire) startMessage() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.clock.startMessage(time.Now())
}

func (w *wire) endMessage() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.clock.endMessage()
	w.coming = nil
}

// timeLine bounds the time in which a command line comes whole, or ends that.
func (w *wire) timeLine(on bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if on {
		w.clock.startLine(time.Now())
	} else {
		w.clock.endLine()
	}
}

// stop ends the connection as soon as no message is under way: now, if the
// client is idle.
func (w *wire) stop() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.stopping = true
	if w.idle {
		_ = w.socket.SetReadDeadline(time.Unix(1, 0)) // wakes the reader; arm refuses the next read
	}
}

// drop ends the connection of a client that may not send, to make room for
// another: wherever its goroutine waits, it waits no longer.
func (w *wire) drop() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.dropped = true
	w.forget()
	_ = w.socket.SetReadDeadline(time.Unix(1, 0)) // arm refuses the next read
	_ = w.socket.SetWriteDeadline(time.Now().Add(lingerTimeIdle))
}

// armWrite bounds the time in which the client takes a reply.
func (w *wire) armWrite() {
	w.mu.Lock()
	defer w.mu.Unlock()
	d := w.limits.WriteTime
	if w.dropped {
		d = lingerTimeIdle
	}
	_ = w.socket.SetWriteDeadline(time.Now().Add(d))
}

// firstClass is what a client that has just come may do.
func (w *wire) firstClass() class {
	if w.proxied {
		return unknown
	}
	c := w.session.class()
	w.clock.stranger = c == stranger
	return c
}

// classify takes note of what the client may do now.
func (w *wire) classify() {
	c := w.session.class()
	if c == w.seat.class && w.clock.stranger == (c == stranger) {
		return
	}
	w.become(w, c)
	w.mu.Lock()
	defer w.mu.Unlock()
	w.clock.stranger = c == stranger
}

// abort cuts the connection.
func (w *wire) abort() { _ = w.socket.Close() }

// Read gives go-smtp its next input.
func (w *wire) Read(p []byte) (int, error) {
	if w.isClosed() {
		return 0, net.ErrClosed // after QUIT: what the client sent behind it is not read
	}
	if len(w.out) == 0 {
		if w.hungUp {
			return 0, io.EOF
		}
		if err := w.next(); err != nil {
			return 0, io.EOF // on any other error go-smtp would write a reply
		}
	}
	n := copy(p, w.out)
	w.out = w.out[n:]
	return n, nil
}

// Write takes go-smtp's replies, line by line.
func (w *wire) Write(p []byte) (int, error) {
	w.lines = append(w.lines, p...)
	for {
		line, rest, found := bytes.Cut(w.lines, []byte("\r\n"))
		if !found {
			return len(p), nil
		}
		err := w.replied(string(line))
		w.lines = append(w.lines[:0], rest...)
		if err != nil {
			return 0, err
		}
	}
}

// send puts a line of a reply on its way, which begins with the last one.
// Whatever text of the client's it echoes, it is one line of printable ASCII.
func (w *wire) send(line string) error {
	line = printable(line)
	w.unsent = append(w.unsent, line[:min(len(line), maxReplyLine)]...)
	w.unsent = append(w.unsent, "\r\n"...)
	if !isLastLine(line) {
		return nil
	}
	if w.broken == nil {
		w.armWrite()
		if _, w.broken = w.Conn.Write(w.unsent); errors.Is(w.broken, os.ErrDeadlineExceeded) {
			w.metrics.hit(limitWrite)
			w.log.Info("the client takes no replies")
		}
	}
	w.unsent = w.unsent[:0]
	if w.broken != nil {
		w.confirm(w.broken)
		w.hangUp()
	}
	return w.broken
}

func isLastLine(line string) bool { return len(line) < 4 || line[3] == ' ' }

// printable replaces what is not printable ASCII.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' {
			return '?'
		}
		return r
	}, s)
}

// hangUp makes go-smtp close the connection once it has written what it has to.
func (w *wire) hangUp() { w.hungUp = true }

// hangUpOn is hangUp for a client that may still be sending.
func (w *wire) hangUpOn() { w.hungUp, w.linger = true, lingerTime }

// lost hangs up because nothing more can be read, and returns what there is to
// say about it, nil if nobody is there to hear.
func (w *wire) lost(err error) *reply.Reply {
	w.hangUp()
	switch {
	case errors.Is(err, errStopping):
		w.linger = lingerTimeIdle
		return reply.ShuttingDown()
	case errors.Is(err, errDropped):
		w.linger = lingerTimeIdle
		return reply.TooManyConnections()
	case errors.Is(err, os.ErrDeadlineExceeded):
		w.linger = lingerTimeIdle
		w.mu.Lock()
		r, limit := w.clock.missed(time.Now())
		w.mu.Unlock()
		w.metrics.hit(limit)
		return r
	}
	return nil
}

func (w *wire) isClosed() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.closed
}

// Close may be called more than once.
func (w *wire) Close() error {
	w.mu.Lock()
	again := w.closed
	w.closed = true
	w.mu.Unlock()
	if again {
		return nil
	}
	if w.linger > 0 && w.closeWrite() == nil {
		_ = w.socket.SetReadDeadline(time.Now().Add(w.linger))
		_, _ = io.CopyN(io.Discard, w.socket, lingerBytes)
	}
	if w.broken != nil {
		_ = w.socket.Close() // TLS would say goodbye first, and wait to be heard
	}
	err := w.Conn.Close()
	w.onClose()
	return err
}

// Deadlines are the wire's own business.
func (w *wire) SetDeadline(time.Time) error      { return nil }
func (w *wire) SetReadDeadline(time.Time) error  { return nil }
func (w *wire) SetWriteDeadline(time.Time) error { return nil }
