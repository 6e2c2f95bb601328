package smtpd

import (
	"bufio"
	"crypto/tls"
	"errors"
	"io"
	"os"
	"strings"
	"time"

	"github.com/smtp2rest/smtp2rest/smtpd/auth"
	"github.com/smtp2rest/smtp2rest/smtpd/reply"
)

// begin does, on the connection's own goroutine, what comes before the
// greeting: a client that keeps us waiting there keeps nobody else waiting.
func (w *wire) begin() error {
	w.begun = true
	if w.proxied {
		if err := w.meetProxy(); err != nil {
			return err
		}
	}
	if w.tlsMode == ImplicitTLS {
		return w.handshake()
	}
	return nil
}

// meetProxy learns from the proxy who the client is.
func (w *wire) meetProxy() error {
	if err := w.await(w.limits.HandshakeTime); err != nil {
		return err
	}
	addr, err := readProxy(w.socket)
	w.setIdle(false)
	if err != nil {
		w.log.Info("PROXY header refused", "error", err)
		return err
	}
	s := w.session
	proxy := s.client.Addr
	s.client.Addr = addr
	if addr.IsValid() {
		if r := w.move(addr, s.class()); r != nil {
			w.log.Info("refused", "reply", r.String(), "for", addr.String())
			w.sayInClear(r)
			return r
		}
	}
	w.classify()
	w.log = clientLog(w.serverLog, s.client).With("proxy", proxy.String())
	s.log = w.log
	return nil
}

// sayInClear says a last word, and never blocks: the first octets always fit
// into the socket's buffer. A client that expects TLS hears nothing: a
// handshake would cost what there is too little of.
func (w *wire) sayInClear(r *reply.Reply) {
	if w.tlsMode != ImplicitTLS {
		_ = w.socket.SetWriteDeadline(time.Now().Add(refuseTime))
		_, _ = io.WriteString(w.socket, r.String()+"\r\n")
	}
}

// startTLS answers STARTTLS (RFC 3207).
func (w *wire) startTLS(arg string) error {
	switch {
	case w.secure:
		return w.answer(reply.BadSequence("TLS is active already"))
	case w.tlsMode != StartTLS:
		return w.answer(reply.NotImplemented("STARTTLS"))
	case arg != "":
		return w.answer(reply.BadArgument("STARTTLS takes no argument"))
	case w.session.open:
		return w.answer(reply.BadSequence("a transaction is open"))
	case w.in.Buffered() > 0:
		// Whoever put this here, in the clear, wants it to be taken for
		// something said inside TLS (CVE-2011-0411 is the best known of its kind).
		w.hangUpOn()
		return w.answer(reply.BadSequence("nothing may follow STARTTLS"))
	}
	if err := w.answer(reply.ReadyForTLS()); err != nil {
		return err
	}
	if err := w.handshake(); err != nil {
		w.broken = err // there is no way left to say anything
		w.hangUp()
		return io.EOF
	}
	w.greeted = false // section 4.2: what was said before counts for nothing
	w.session.forget()
	return nil
}

// handshake puts TLS between the socket and the wire, so that every limit
// holds inside it as well.
func (w *wire) handshake() error {
	conn := tls.Server(w.socket, w.tls)
	if err := w.await(w.limits.HandshakeTime); err != nil {
		return err
	}
	err := conn.Handshake()
	w.setIdle(false)
	if err != nil {
		w.metrics.handshake(0)
		if errors.Is(err, os.ErrDeadlineExceeded) && !w.isDropped() {
			w.metrics.hit(limitHandshake)
		}
		w.log.Info("TLS handshake failed", "error", err)
		return err
	}
	w.metrics.handshake(conn.ConnectionState().Version)
	w.Conn, w.secure = conn, true
	// What was read in the clear can never be read inside, whatever was let through.
	w.in = bufio.NewReaderSize(reader(w.fill), w.limits.CommandBytes)
	w.log.Debug("TLS", "version", tls.VersionName(conn.ConnectionState().Version))
	return nil
}

// await bounds what is about to be read and written below the wire. It counts
// as idle: stop ends it.
func (w *wire) await(d time.Duration) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	switch {
	case w.stopping:
		return errStopping
	case w.dropped:
		return errDropped
	}
	w.idle = true
	return w.socket.SetDeadline(time.Now().Add(d))
}

// closeWrite tells the client that nothing more comes.
func (w *wire) closeWrite() error {
	if conn, ok := w.Conn.(*tls.Conn); ok && w.broken == nil {
		if err := conn.CloseWrite(); err != nil {
			return err
		}
	}
	half, ok := w.socket.(interface{ CloseWrite() error })
	if !ok {
		return errors.ErrUnsupported
	}
	return half.CloseWrite()
}

// extensions are what EHLO offers besides go-smtp's own.
func (w *wire) extensions() (list []string) {
	if w.tlsMode == StartTLS && !w.secure {
		list = append(list, "STARTTLS")
	}
	if w.session.canLogIn() && w.passwordsAllowed() {
		list = append(list, "AUTH "+strings.Join(auth.Mechanisms(), " "))
	}
	return list
}
