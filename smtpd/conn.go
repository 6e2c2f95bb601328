package smtpd

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"log/slog"
	"net"
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

	// maxLoginLine: RFC 4954 section 4, for AUTH and for the answer to a challenge,
	// with the line end.
	maxLoginLine = 12_288

	// These bound what is read and thrown away before a connection is closed on a
	// client that may still be sending: if octets are left unread, TCP drops the
	// reply that tells the client why. An idle client gets less time.
	lingerTime     = time.Second
	lingerTimeIdle = 100 * time.Millisecond
	lingerBytes    = 1 << 20

	refuseTime = time.Second // more than a few octets into a fresh socket ever take, on however busy a machine
)

var (
	errStopping = errors.New("smtpd: stopping")
	errDropped  = errors.New("smtpd: dropped for another client")
)

// ConnectionBytes is what a connection costs while it does nothing: measured
// by BenchmarkIdle, plus what TLS keeps, plus something for its goroutine.
const ConnectionBytes = 32 << 10

// A conn is a client's connection below the protocol: the socket, the PROXY
// header, TLS, deadlines, the memory of the message under way, and the end. It
// reads lines and writes replies. It knows no command: the filter, which stands
// between it and go-smtp, does.
//
// One goroutine, go-smtp's for this connection, owns a conn. Other goroutines call
// only stop, drop, abort and press.
type conn struct {
	net.Conn         // what is read and written: the socket, or TLS on it
	socket   *socket // on which deadlines are set
	in       *bufio.Reader
	ahead    []byte    // read from the socket, and not by in yet
	block    *block    // that holds ahead
	listener *listener // by which the client came
	limits   Limits
	log      *slog.Logger
	metrics  *metrics
	onClose  func()

	entry  entry              // how the connection is counted
	ctx    context.Context    // ends with the connection, when it is dropped, and with the Backend's
	cancel context.CancelFunc // ends ctx
	secure bool               // inside TLS
	local  bool               // by a unix socket

	hungUp  bool          // nothing more is read, and go-smtp closes
	linger  time.Duration // how long to read on before closing
	broken  error         // why nothing can be written any more
	pending *receipt      // of the message whose reply was written last
	share   *budget.Share // of the memory, for the message under way
	coming  *content      // the message under way, while it is read

	mu        sync.Mutex
	clock     clock
	stopping  bool
	dropped   bool // to make room for another client
	idle      bool // waiting for a command, with no message under way
	closed    bool
	unwatched bool // watch must not read any more
}

// A socket can be read without waiting: what has not arrived yet is then
// os.ErrDeadlineExceeded, which neither bufio nor TLS takes for the end.
type socket struct {
	net.Conn
	noWait bool
}

func (s *socket) Read(p []byte) (int, error) {
	if s.noWait {
		return readArrived(s.Conn, p)
	}
	return s.Conn.Read(p)
}

// readExpired is readArrived for connections that are no sockets of the system.
func readExpired(conn net.Conn, p []byte) (int, error) {
	if err := conn.SetReadDeadline(time.Now()); err != nil {
		return 0, err
	}
	return conn.Read(p)
}

// wake ends a read that waits. Unless a flag is set first, the next one waits again.
func (s *socket) wake() { _ = s.SetReadDeadline(time.Unix(1, 0)) }

// fill reads from the socket. Each read has a deadline of its own: go-smtp would
// set one for a whole message, which slow but steady clients miss.
func (c *conn) fill(p []byte) (int, error) {
	if len(c.ahead) > 0 {
		n := copy(p, c.ahead)
		c.ahead = c.ahead[n:]
		c.endBlock()
		return n, nil
	}
	n, err := c.readOnce(p)
	for n == 0 && c.share.Pressed() { // press woke the read, or came just before it
		c.giveWay()
		n, err = c.readOnce(p)
	}
	if errors.Is(err, os.ErrDeadlineExceeded) {
		c.mu.Lock()
		defer c.mu.Unlock()
		if end := c.ending(); end != nil {
			err = end
		}
	}
	return n, err
}

func (c *conn) readOnce(p []byte) (int, error) {
	if err := c.armRead(); err != nil {
		return 0, err
	}
	if c.share.Pressed() {
		return 0, nil
	}
	n, err := c.Conn.Read(p)
	if n == len(p) && c.coming != nil {
		c.readAhead()
	}
	c.withClock(func(k *clock, now time.Time) { k.read(now, n+len(c.ahead)) })
	return n, err
}

// A block is for octets of a message that have arrived and do not fit the buffer that
// lines are read from.
type block [32 << 10]byte

// readAhead reads what else of a message has arrived. So a message takes few system
// calls, and yet a client that is slow, or idle, costs only a small buffer.
func (c *conn) readAhead() {
	c.block, _ = c.listener.server.blocks.Get().(*block)
	if c.block == nil {
		c.block = new(block)
	}
	c.socket.noWait = true
	n, _ := c.Conn.Read(c.block[:]) // the next read meets the same error
	c.socket.noWait = false
	c.ahead = c.block[:n]
	c.endBlock()
}

// endBlock gives the block back when all of it was read.
func (c *conn) endBlock() {
	if len(c.ahead) == 0 && c.block != nil {
		c.listener.server.blocks.Put(c.block)
		c.ahead, c.block = nil, nil
	}
}

// arrived is how many octets were read from the socket and not taken yet.
func (c *conn) arrived() int { return c.in.Buffered() + len(c.ahead) }

type readerFunc func([]byte) (int, error)

func (r readerFunc) Read(p []byte) (int, error) { return r(p) }

// newBuffer makes the buffer that lines are read from. Inside TLS there is a new
// one, so that nothing said in the clear is taken for something said inside.
func (c *conn) newBuffer() {
	c.in = bufio.NewReaderSize(readerFunc(c.fill), int(c.limits.CommandBytes))
}

// armRead sets the deadline of a read, or returns why nothing is to be read any
// more. It holds the lock so that it never undoes the deadline by which stop, drop
// and setWatched wake the reader.
func (c *conn) armRead() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.ending(); err != nil {
		return err
	}
	if c.unwatched {
		return os.ErrDeadlineExceeded
	}
	return c.socket.SetReadDeadline(c.clock.deadline(time.Now()))
}

// ending returns why the connection ends now, nil if it does not. c.mu is locked.
func (c *conn) ending() error {
	switch {
	case c.dropped:
		return errDropped
	case c.stopping && c.idle:
		return errStopping
	}
	return nil
}

func (c *conn) isDropped() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.dropped
}

// setIdle says whether the client has nothing under way, so that stop may end the
// connection at once. It returns why the connection ends now.
func (c *conn) setIdle(idle bool) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.idle = idle
	return c.ending()
}

func (c *conn) withClock(f func(k *clock, now time.Time)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	f(&c.clock, time.Now())
}

// startMessage and endMessage bound the time in which a message is read, not
// that in which it is dealt with.
func (c *conn) startMessage() { c.withClock((*clock).startMessage) }

func (c *conn) endMessage() {
	c.withClock((*clock).endMessage)
	c.coming = nil
}

// stop ends the connection as soon as no message is under way: now, if the
// client is idle.
func (c *conn) stop() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.stopping = true
	if c.idle {
		c.socket.wake()
	}
}

// drop ends the connection of a client that may not send, to make room for
// another: wherever its goroutine waits, it waits no longer.
func (c *conn) drop() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.dropped = true
	c.cancel()
	c.socket.wake()
	_ = c.socket.SetWriteDeadline(time.Now().Add(lingerTimeIdle))
}

// abort cuts the connection.
func (c *conn) abort() { _ = c.socket.Close() }

// readLine returns a line with its end, which is good until the next read. A line
// longer than Limits.CommandBytes is bufio.ErrBufferFull, unless isLogin says from
// its beginning that it is part of a login: those may be longer.
func (c *conn) readLine(isLogin func(begin []byte) bool) ([]byte, error) {
	c.withClock((*clock).startLine)
	defer c.withClock((*clock).endLine)
	p, err := c.in.ReadSlice('\n')
	if !errors.Is(err, bufio.ErrBufferFull) || !isLogin(p) {
		return p, err
	}
	line := append(make([]byte, 0, maxLoginLine), p...)
	for {
		more, err := c.in.ReadSlice('\n')
		if len(line)+len(more) > maxLoginLine {
			return nil, bufio.ErrBufferFull
		}
		line = append(line, more...)
		if !errors.Is(err, bufio.ErrBufferFull) {
			return line, err
		}
	}
}

// early reports whether something of the client's has arrived while it is our turn
// to speak. It does not wait: a client that writes all it has to say at once is
// caught here or behind its EHLO.
func (c *conn) early() bool {
	c.socket.noWait = true
	_, err := c.in.Peek(1)
	c.socket.noWait = false
	return err == nil
}

// write sends a reply, given as lines without their ends. Whatever the lines quote
// of the client's text, it leaves as printable ASCII.
func (c *conn) write(lines ...string) error {
	if c.broken == nil {
		var all []byte
		for _, line := range lines {
			line = printable(line)
			all = append(append(all, line[:min(len(line), maxReplyLine)]...), "\r\n"...)
		}
		c.armWrite()
		if _, c.broken = c.Conn.Write(all); errors.Is(c.broken, os.ErrDeadlineExceeded) {
			c.metrics.hit(limitWrite)
			c.log.Info("the client does not read replies")
		}
	}
	if c.broken != nil {
		c.confirm(c.broken)
		c.hangUp(0)
	}
	return c.broken
}

// armWrite bounds the time in which the client takes a reply.
func (c *conn) armWrite() {
	c.mu.Lock()
	defer c.mu.Unlock()
	d := c.limits.WriteTime
	if c.dropped {
		d = lingerTimeIdle
	}
	_ = c.socket.SetWriteDeadline(time.Now().Add(d))
}

// printable replaces what is not printable ASCII.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r > '~' {
			return '?'
		}
		return r
	}, s)
}

// sayInClear says a last word without blocking: the first octets always fit into
// the socket's buffer. A client that expects TLS hears nothing, because a
// handshake would take what there is too little of.
func (c *conn) sayInClear(r *reply.Reply) {
	if c.listener.config.TLS.Mode != ImplicitTLS {
		_ = c.socket.SetWriteDeadline(time.Now().Add(refuseTime))
		_, _ = io.WriteString(c.socket, r.String()+"\r\n")
	}
}

// awaitHandshake bounds what is about to be read and written below the lines: a
// PROXY header or a TLS handshake. The client counts as idle, so stop ends it.
func (c *conn) awaitHandshake() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.idle = true
	if err := c.ending(); err != nil {
		return err
	}
	return c.socket.SetDeadline(time.Now().Add(c.limits.HandshakeTime))
}

// handshake puts TLS between the socket and the lines, so that every limit
// holds inside it as well.
func (c *conn) handshake() error {
	inside := tls.Server(c.socket, c.listener.tls)
	if err := c.awaitHandshake(); err != nil {
		return err
	}
	err := inside.Handshake()
	_ = c.setIdle(false)
	if err != nil {
		c.metrics.handshake(0)
		if errors.Is(err, os.ErrDeadlineExceeded) && !c.isDropped() {
			c.metrics.hit(limitHandshake)
		}
		c.log.Info("TLS handshake failed", "error", err)
		return err
	}
	version := inside.ConnectionState().Version
	c.metrics.handshake(version)
	c.Conn, c.secure = inside, true
	c.newBuffer()
	c.log.Debug("TLS", "version", tls.VersionName(version))
	return nil
}

// hangUp makes go-smtp close the connection once it has written what it has to.
// linger is lingerTime for a client that may still be sending.
func (c *conn) hangUp(linger time.Duration) { c.hungUp, c.linger = true, max(c.linger, linger) }

// lost hangs up because nothing more can be read. It returns what to tell the
// client, nil if nobody is there to hear it.
func (c *conn) lost(err error) (r *reply.Reply) {
	switch {
	case errors.Is(err, errStopping):
		r = reply.ShuttingDown()
	case errors.Is(err, errDropped):
		r = reply.TooManyConnections()
	case errors.Is(err, os.ErrDeadlineExceeded):
		var met limit
		c.withClock(func(k *clock, now time.Time) { r, met = k.missed(now) })
		c.metrics.hit(met)
	default:
		c.hangUp(0)
		return nil
	}
	c.hangUp(lingerTimeIdle)
	return r
}

func (c *conn) isClosed() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.closed
}

// Close may be called more than once.
func (c *conn) Close() error {
	c.mu.Lock()
	again := c.closed
	c.closed = true
	c.mu.Unlock()
	if again {
		return nil
	}
	if c.linger > 0 && c.closeWrite() == nil {
		_ = c.socket.SetReadDeadline(time.Now().Add(c.linger))
		_, _ = io.CopyN(io.Discard, c.socket, lingerBytes)
	}
	if c.broken != nil {
		_ = c.socket.Close() // TLS would say goodbye first, and wait to be heard
	}
	err := c.Conn.Close()
	c.onClose()
	return err
}

// closeWrite tells the client that nothing more comes.
func (c *conn) closeWrite() error {
	if inside, ok := c.Conn.(*tls.Conn); ok && c.broken == nil {
		if err := inside.CloseWrite(); err != nil {
			return err
		}
	}
	half, ok := c.socket.Conn.(interface{ CloseWrite() error })
	if !ok {
		return errors.ErrUnsupported
	}
	return half.CloseWrite()
}

// go-smtp sets no deadlines: those of the conn are better.
func (c *conn) SetDeadline(time.Time) error      { return nil }
func (c *conn) SetReadDeadline(time.Time) error  { return nil }
func (c *conn) SetWriteDeadline(time.Time) error { return nil }

// hold reserves n bytes in all for the message under way.
func (c *conn) hold(ctx context.Context, kind budget.Kind, n int64) *reply.Reply {
	if c.share.TryHold(kind, n) { // without a timer, as for most mail
		return nil
	}
	return c.waitForMemory(ctx, func(ctx context.Context) error { return c.share.Hold(ctx, kind, n) })
}

// admit waits until there is room for a message of so many bytes, and reserves its
// beginning. A size of 0 is not known.
func (c *conn) admit(size int64) *reply.Reply {
	if size <= firstPiece && c.share.TryHold(budget.Reading, firstHeld(size)) { // so small that it need not be announced
		return nil
	}
	return c.waitForMemory(c.ctx, func(ctx context.Context) error {
		if err := c.share.Announce(ctx, size); err != nil {
			return err
		}
		return c.share.Hold(ctx, budget.Reading, firstHeld(size))
	})
}

func (c *conn) waitForMemory(ctx context.Context, hold func(context.Context) error) *reply.Reply {
	began := time.Now()
	ctx, cancel := context.WithTimeout(ctx, c.limits.MemoryWait)
	defer cancel()
	err := hold(ctx)
	c.withClock(func(k *clock, now time.Time) { k.excuse(now.Sub(began)) })
	switch {
	case err == nil:
		return nil
	case errors.Is(err, budget.ErrTooLarge):
		c.metrics.hit(limitSize)
		return reply.TooLarge()
	}
	c.metrics.hit(limitMemory)
	return reply.MemorySpent()
}

// giveWay gives up the memory of the message under way, because its client is slow
// and others wait for memory. The client is told at the end of the message.
func (c *conn) giveWay() {
	c.metrics.hit(limitMemory)
	if c.coming != nil {
		c.coming.refuse("", reply.MemorySpent())
	}
	c.share.Release()
}

// press wakes the owner, which reads or, between chunks, writes, to give way.
func (c *conn) press() {
	c.socket.wake()
	_ = c.socket.SetWriteDeadline(time.Now().Add(lingerTime))
}

// watch notices when the client hangs up while its message is dealt with. What
// the client sends meanwhile stays where the next command is read. Nothing else
// may read until stop has returned.
func (c *conn) watch(r *receipt) (stop func()) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		if _, err := c.in.Peek(1); isGone(err) {
			r.lost()
		}
	}()
	return func() {
		c.setWatched(false)
		<-done
		c.setWatched(true)
	}
}

// setWatched wakes the reader of watch and keeps it from reading again, or
// allows reading.
func (c *conn) setWatched(on bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.unwatched = !on
	if !on {
		c.socket.wake()
	}
}

// isGone tells a client that left from one that is silent. While a message is
// dealt with, the end of what the client sends means that it does not wait.
func isGone(err error) bool {
	return err != nil && !errors.Is(err, os.ErrDeadlineExceeded) && !errors.Is(err, errStopping)
}

// confirm is called with what came after the reply to a message. A command, and an
// orderly end of the connection, show that the client had the reply; a reset is taken
// to show that it was gone before. A client can read the reply and reset the connection
// at once, but nothing tells: its system acknowledges what it read up to 40 ms later,
// and acknowledges as well what nobody will read.
func (c *conn) confirm(err error) {
	r := c.pending
	c.pending = nil
	if r != nil && isGone(err) && !errors.Is(err, io.EOF) {
		r.lost()
	}
}
