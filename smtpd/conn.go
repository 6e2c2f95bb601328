package smtpd

import (
	"bufio"
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

	// maxLoginLine: RFC 4954 section 4, for AUTH and for what answers a challenge,
	// with the line end.
	maxLoginLine = 12_288

	// These bound what is read and thrown away before a connection is closed on
	// a client that may still be sending: closing with unread octets makes TCP
	// drop the reply that tells it why. An idle client is given less.
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

// A conn is a client's connection below the protocol: the socket, what a proxy
// says of it, TLS on it, deadlines, the memory of the message under way, and the
// end. It reads lines and writes replies, and knows no command; that is the
// filter's business, which stands between it and go-smtp.
//
// One goroutine, go-smtp's for this connection, owns a conn. Only stop, drop,
// abort and press are called from others.
type conn struct {
	net.Conn         // what is read and written: the socket, or TLS on it
	socket   *socket // deadlines, and the hard end, are the socket's
	in       *bufio.Reader
	limits   Limits
	log      *slog.Logger
	metrics  *metrics
	onClose  func()

	port    *port              // by which the client came
	seat    seat               // the roster's
	ctx     context.Context    // ends with the connection, when it is dropped, and with the Backend's
	forget  context.CancelFunc // ends ctx
	tls     *tls.Config        // of the listener, nil without
	tlsMode TLSMode
	secure  bool // inside TLS
	local   bool // by a unix socket
	proxied bool // a proxy tells who the client is

	hungUp  bool          // nothing more is read, and go-smtp closes
	linger  time.Duration // how long the client is heard out when we close
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

// fill reads from the socket, each time with a fresh deadline: go-smtp's own
// is one for a whole message, which fails slow but steady clients.
func (c *conn) fill(p []byte) (int, error) {
	n, err := c.readOnce(p)
	for n == 0 && c.share.Pressed() { // woken to give way, or told so just before
		c.giveWay()
		n, err = c.readOnce(p)
	}
	if errors.Is(err, os.ErrDeadlineExceeded) {
		if end := c.ending(); end != nil {
			err = end
		}
	}
	return n, err
}

func (c *conn) readOnce(p []byte) (int, error) {
	if err := c.arm(); err != nil {
		return 0, err
	}
	if c.share.Pressed() {
		return 0, nil
	}
	n, err := c.Conn.Read(p)
	c.mu.Lock()
	c.clock.read(time.Now(), n)
	c.mu.Unlock()
	return n, err
}

type reader func([]byte) (int, error)

func (r reader) Read(p []byte) (int, error) { return r(p) }

// newBuffer is what lines are read from. What was read before, in the clear, can
// never be read from the next one, inside TLS.
func (c *conn) newBuffer() { c.in = bufio.NewReaderSize(reader(c.fill), int(c.limits.CommandBytes)) }

// arm sets the deadline of a read, or says why there is none any more. stop and
// drop wake who reads by a deadline of their own, which this must not undo.
func (c *conn) arm() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := c.endingLocked(); err != nil {
		return err
	}
	if c.unwatched {
		return os.ErrDeadlineExceeded
	}
	return c.socket.SetReadDeadline(c.clock.deadline(time.Now()))
}

// ending is why the connection ends now, nil if it does not.
func (c *conn) ending() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.endingLocked()
}

func (c *conn) endingLocked() error {
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

func (c *conn) setIdle(idle bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.idle = idle
}

// setStranger tells the clock whether the client may not send.
func (c *conn) setStranger(yes bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.clock.stranger = yes
}

// startMessage and endMessage bound the time in which a message is read, not
// that in which it is dealt with.
func (c *conn) startMessage() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.clock.startMessage(time.Now())
}

func (c *conn) endMessage() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.clock.endMessage()
	c.coming = nil
}

// stop ends the connection as soon as no message is under way: now, if the
// client is idle.
func (c *conn) stop() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.stopping = true
	if c.idle {
		_ = c.socket.SetReadDeadline(time.Unix(1, 0)) // wakes the reader; arm refuses the next read
	}
}

// drop ends the connection of a client that may not send, to make room for
// another: wherever its goroutine waits, it waits no longer.
func (c *conn) drop() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.dropped = true
	c.forget()
	_ = c.socket.SetReadDeadline(time.Unix(1, 0)) // arm refuses the next read
	_ = c.socket.SetWriteDeadline(time.Now().Add(lingerTimeIdle))
}

// abort cuts the connection.
func (c *conn) abort() { _ = c.socket.Close() }

// readLine returns a line with its end. The line is only good until the next
// read. One that is longer than Limits.CommandBytes is bufio.ErrBufferFull; what
// belongs to a login may be longer, by isLong of what has come of it.
func (c *conn) readLine(isLong func(begin []byte) bool) ([]byte, error) {
	c.timeLine(true)
	defer c.timeLine(false)
	p, err := c.in.ReadSlice('\n')
	if !errors.Is(err, bufio.ErrBufferFull) || !isLong(p) {
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

// timeLine bounds the time in which a line comes whole, or ends that.
func (c *conn) timeLine(on bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if on {
		c.clock.startLine(time.Now())
	} else {
		c.clock.endLine()
	}
}

// early reports whether something of the client's has arrived while it is our
// turn to speak. It does not wait: a client that writes all it has to say at once
// is caught here or behind its EHLO.
func (c *conn) early() bool {
	c.socket.noWait = true
	_, err := c.in.Peek(1)
	c.socket.noWait = false
	return err == nil
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

// write sends a reply, of lines without line ends. Whatever text of the client's
// they echo, they are printable ASCII.
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
			c.log.Info("the client takes no replies")
		}
	}
	if c.broken != nil {
		c.confirm(c.broken)
		c.hangUp()
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

// sayInClear says a last word, and never blocks: the first octets always fit
// into the socket's buffer. A client that expects TLS hears nothing: a
// handshake would cost what there is too little of.
func (c *conn) sayInClear(r *reply.Reply) {
	if c.tlsMode != ImplicitTLS {
		_ = c.socket.SetWriteDeadline(time.Now().Add(refuseTime))
		_, _ = io.WriteString(c.socket, r.String()+"\r\n")
	}
}

// await bounds what is about to be read and written below the lines. It counts
// as idle: stop ends it.
func (c *conn) await(d time.Duration) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.stopping:
		return errStopping
	case c.dropped:
		return errDropped
	}
	c.idle = true
	return c.socket.SetDeadline(time.Now().Add(d))
}

// readProxyHeader reads what a proxy tells of the client before all else.
func (c *conn) readProxyHeader() (netip.AddrPort, error) {
	if err := c.await(c.limits.HandshakeTime); err != nil {
		return netip.AddrPort{}, err
	}
	addr, err := readProxy(c.socket)
	c.setIdle(false)
	if err != nil {
		c.log.Info("PROXY header refused", "error", err)
	}
	return addr, err
}

// handshake puts TLS between the socket and the lines, so that every limit
// holds inside it as well.
func (c *conn) handshake() error {
	inside := tls.Server(c.socket, c.tls)
	if err := c.await(c.limits.HandshakeTime); err != nil {
		return err
	}
	err := inside.Handshake()
	c.setIdle(false)
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
func (c *conn) hangUp() { c.hungUp = true }

// hangUpOn is hangUp for a client that may still be sending.
func (c *conn) hangUpOn() { c.hungUp, c.linger = true, lingerTime }

// lost hangs up because nothing more can be read, and returns what there is to
// say about it, nil if nobody is there to hear.
func (c *conn) lost(err error) *reply.Reply {
	c.hangUp()
	switch {
	case errors.Is(err, errStopping):
		c.linger = lingerTimeIdle
		return reply.ShuttingDown()
	case errors.Is(err, errDropped):
		c.linger = lingerTimeIdle
		return reply.TooManyConnections()
	case errors.Is(err, os.ErrDeadlineExceeded):
		c.linger = lingerTimeIdle
		c.mu.Lock()
		r, limit := c.clock.missed(time.Now())
		c.mu.Unlock()
		c.metrics.hit(limit)
		return r
	}
	return nil
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

// Deadlines are the conn's own business, and none of go-smtp's.
func (c *conn) SetDeadline(time.Time) error      { return nil }
func (c *conn) SetReadDeadline(time.Time) error  { return nil }
func (c *conn) SetWriteDeadline(time.Time) error { return nil }

// hold reserves n bytes in all for the message under way.
func (c *conn) hold(ctx context.Context, kind budget.Kind, n int64) *reply.Reply {
	return c.waitForMemory(ctx, func(ctx context.Context) error { return c.share.Hold(ctx, kind, n) })
}

// admit reserves for the beginning of a message of so many bytes, 0 for nobody
// knows, when there is room for all of it.
func (c *conn) admit(size int64) *reply.Reply {
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
	c.mu.Lock()
	c.clock.excuse(time.Since(began))
	c.mu.Unlock()
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

// reserveContent is hold for content that comes.
func (c *conn) reserveContent(kind budget.Kind, n int64) *reply.Reply {
	return c.hold(c.ctx, kind, n)
}

// giveWay stops keeping the message under way, whose client is slow while
// others wait for memory. The client hears it at the end of the message.
func (c *conn) giveWay() {
	c.metrics.hit(limitMemory)
	if c.coming != nil {
		c.coming.refuse("", reply.MemorySpent())
	}
	c.share.Release()
}

// press wakes the owner of the conn, which reads or, between chunks, writes, to
// give way.
func (c *conn) press() {
	_ = c.socket.SetReadDeadline(time.Unix(1, 0))
	_ = c.socket.SetWriteDeadline(time.Now().Add(lingerTime))
}

// watch notices when the client hangs up while its message is dealt with. What
// the client sends meanwhile stays where the next command is read. Until stop
// returns nothing else may read.
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
		_ = c.socket.SetReadDeadline(time.Unix(1, 0))
	}
}

// isGone tells a client that left from one that is silent. An end of file in
// the middle of a message's handling is a client that does not wait.
func isGone(err error) bool {
	return err != nil && !errors.Is(err, os.ErrDeadlineExceeded) && !errors.Is(err, errStopping)
}

// confirm is called with what came after the reply to a message. Any command,
// and an orderly end of the connection, show that the client had it; a reset
// shows that it was gone before.
func (c *conn) confirm(err error) {
	r := c.pending
	c.pending = nil
	if r != nil && isGone(err) && !errors.Is(err, io.EOF) {
		r.lost()
	}
}

// A clock bounds the reading of a connection: a whole command line comes
// within IdleTime, however its octets are spread; a whole message within
// MessageTime, its octets no further apart than IdleTime and no more slowly
// than MinRate. Its user holds a lock.
//
// The rate is a bucket that leaks: it holds what a client that keeps to the
// rate sends in RateTime, starts full, and takes in what comes. Empty, it is
// the end. So a pause of RateTime is forgiven, now and then, and one octet at a
// time is not.
type clock struct {
	limits   Limits
	stranger bool // may not send, and is given less time for a command

	lineEnd    time.Time // of the command line that is being read
	messageEnd time.Time // of the message that is being read
	credit     float64   // what the bucket held at some time
	at         time.Time
}

// idle is how long the client may be silent.
func (c *clock) idle() time.Duration {
	if c.stranger {
		return min(c.limits.IdleTime, c.limits.StrangerTime)
	}
	return c.limits.IdleTime
}

func (c *clock) startLine(now time.Time) { c.lineEnd = now.Add(c.idle()) }

func (c *clock) endLine() { c.lineEnd = time.Time{} }

func (c *clock) startMessage(now time.Time) {
	if c.messageEnd.IsZero() {
		c.messageEnd = now.Add(c.limits.MessageTime)
		c.credit, c.at = c.most(), now
	}
}

func (c *clock) endMessage() { c.messageEnd = time.Time{} }

func (c *clock) most() float64 { return float64(c.limits.MinRate) * c.limits.RateTime.Seconds() }

// read takes in n octets.
func (c *clock) read(now time.Time, n int) {
	c.credit = min(c.left(now)+float64(n), c.most())
	c.at = now
}

func (c *clock) left(now time.Time) float64 {
	return c.credit - float64(c.limits.MinRate)*now.Sub(c.at).Seconds()
}

// rated reports whether the rate counts now.
func (c *clock) rated() bool { return !c.messageEnd.IsZero() && c.limits.MinRate > 0 }

// excuse is for time in which the client was kept waiting by us.
func (c *clock) excuse(d time.Duration) {
	if !c.messageEnd.IsZero() {
		c.messageEnd, c.at = c.messageEnd.Add(d), c.at.Add(d)
	}
}

// deadline is until when a read may last.
func (c *clock) deadline(now time.Time) time.Time {
	d := now.Add(c.idle())
	if !c.lineEnd.IsZero() && c.lineEnd.Before(d) {
		d = c.lineEnd
	}
	if !c.messageEnd.IsZero() && c.messageEnd.Before(d) {
		d = c.messageEnd
	}
	if c.rated() {
		seconds := c.left(now) / float64(c.limits.MinRate)
		if empty := now.Add(time.Duration(seconds * float64(time.Second))); empty.Before(d) {
			d = empty
		}
	}
	return d
}

// missed is what a client is told that missed the deadline, and the limit.
func (c *clock) missed(now time.Time) (*reply.Reply, limit) {
	switch {
	case !c.messageEnd.IsZero() && !now.Before(c.messageEnd):
		return reply.TooSlow(), limitMessageTime
	case c.rated() && c.left(now) <= 0:
		return reply.BelowRate(), limitMinRate
	}
	if c.stranger && c.limits.StrangerTime < c.limits.IdleTime {
		return reply.TooSlow(), limitStrangerTime
	}
	return reply.TooSlow(), limitIdle
}
