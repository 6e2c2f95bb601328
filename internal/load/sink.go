package load

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"strconv"
	"sync"
	"time"
)

// Sink takes mail, by HTTP as a provider's API does or by SMTP, and counts what arrives
// of each mail. It parses no more than that needs, so that what it costs is small beside
// the server that is measured.
type Sink struct {
	listener net.Listener
	delay    time.Duration

	mu       sync.Mutex
	arrived  map[uint64]int // how often each mail did, by its number
	unmarked int            // arrivals without a number
	last     time.Time
	conns    map[net.Conn]bool
	closed   bool
	serving  sync.WaitGroup
}

// SinkOptions configure a Sink.
type SinkOptions struct {
	Address string
	SMTP    bool          // else HTTP
	Delay   time.Duration // how long each answer takes
	TLS     *tls.Config   // nil: none
}

// NewSink starts a sink.
func NewSink(o SinkOptions) (*Sink, error) {
	listener, err := net.Listen("tcp", o.Address)
	if err != nil {
		return nil, err
	}
	s := &Sink{listener: listener, delay: o.Delay, arrived: map[uint64]int{}, conns: map[net.Conn]bool{}}
	handle := s.http
	if o.SMTP {
		handle = s.smtp
	}
	s.serving.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return // closed
			}
			if o.TLS != nil {
				conn = tls.Server(conn, o.TLS)
			}
			if !s.opened(conn) {
				return
			}
			s.serving.Go(func() {
				defer s.gone(conn)
				_ = handle(conn) // an error is the end of the connection
			})
		}
	})
	return s, nil
}

// Address returns where the sink listens.
func (s *Sink) Address() string { return s.listener.Addr().String() }

// Close ends all connections.
func (s *Sink) Close() {
	s.mu.Lock()
	s.closed = true
	_ = s.listener.Close()
	for conn := range s.conns {
		_ = conn.Close()
	}
	s.mu.Unlock()
	s.serving.Wait()
}

func (s *Sink) opened(conn net.Conn) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		_ = conn.Close()
		return false
	}
	s.conns[conn] = true
	return true
}

func (s *Sink) gone(conn net.Conn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.conns, conn)
	_ = conn.Close()
}

// took counts copies of a mail. It returns how many arrivals there were.
func (s *Sink) took(text []byte, copies int) uint64 {
	id, ok := markedIn(text)
	if s.delay > 0 {
		time.Sleep(s.delay)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.last = time.Now()
	if !ok {
		s.unmarked += copies
		return 0
	}
	s.arrived[id] += copies
	return id
}

// maxBody bounds what the sink reads of one request.
const maxBody = 256 << 20

// http answers each request with 200 and a message_id.
func (s *Sink) http(conn net.Conn) error {
	in := bufio.NewReaderSize(conn, 32<<10)
	var body, answer []byte
	for {
		length := int64(0)
		for {
			line, err := in.ReadSlice('\n')
			if err != nil {
				return err
			}
			line = bytes.TrimRight(line, "\r\n")
			if len(line) == 0 {
				break
			}
			name, value, _ := bytes.Cut(line, []byte(":"))
			switch {
			case bytes.EqualFold(name, []byte("Content-Length")):
				if length, err = strconv.ParseInt(string(bytes.TrimSpace(value)), 10, 64); err != nil || length < 0 || length > maxBody {
					return fmt.Errorf("Content-Length: %s", value)
				}
			case bytes.EqualFold(name, []byte("Transfer-Encoding")):
				return fmt.Errorf("Transfer-Encoding: %s", value) // no client of this API needs it
			}
		}
		if int64(cap(body)) < length {
			body = make([]byte, length)
		}
		body = body[:length]
		if _, err := io.ReadFull(in, body); err != nil {
			return err
		}
		answer = fmt.Appendf(answer[:0], "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 37\r\n\r\n{\"message_id\":\"msg_%016x\"}", s.took(body, 1))
		if _, err := conn.Write(answer); err != nil {
			return err
		}
	}
}

// smtp answers each mail with 250.
func (s *Sink) smtp(conn net.Conn) error {
	in := bufio.NewReaderSize(conn, 32<<10)
	say := func(line string) error { // what a client pipelined is answered together
		_, err := io.WriteString(conn, line+"\r\n")
		return err
	}
	if err := say("220 sink.invalid ESMTP"); err != nil {
		return err
	}
	recipients := 0
	for {
		line, err := in.ReadSlice('\n')
		if err != nil {
			return err
		}
		answer := "250 2.0.0 Ok"
		switch verb := string(bytes.ToUpper(line[:min(4, len(line))])); verb {
		case "EHLO":
			answer = "250-sink.invalid\r\n250-PIPELINING\r\n250-8BITMIME\r\n250 SMTPUTF8"
		case "MAIL":
			recipients = 0
		case "RCPT":
			recipients++
		case "QUIT":
			return say("221 2.0.0 Bye")
		case "DATA":
			if err := say("354 Go ahead"); err != nil {
				return err
			}
			marked, err := readMail(in)
			if err != nil {
				return err
			}
			s.took(marked, recipients)
		}
		if err := say(answer); err != nil {
			return err
		}
	}
}

// readMail reads a mail to its final dot. It returns the first line with a mark.
func readMail(in *bufio.Reader) (marked []byte, err error) {
	for {
		line, err := in.ReadSlice('\n')
		if err != nil && err != bufio.ErrBufferFull {
			return nil, err
		}
		if string(line) == ".\r\n" {
			return marked, nil
		}
		if marked == nil {
			if _, ok := markedIn(line); ok {
				marked = bytes.Clone(line)
			}
		}
	}
}

// Arrivals compares what arrived with what was answered 250.
type Arrivals struct {
	Exact    int `json:"exact"`      // accepted mails of which each recipient's copy arrived once
	Missing  int `json:"missing"`    // accepted mails of which not all arrived
	Repeated int `json:"repeated"`   // accepted mails of which more arrived
	Ghosts   int `json:"unanswered"` // mails that arrived without a 250
	Unmarked int `json:"unmarked"`   // arrivals that were not of this run
}

// Check waits until everything accepted has arrived, or until nothing has for the time
// given, and compares.
func (s *Sink) Check(ctx context.Context, r *Result, patience time.Duration) Arrivals {
	for began := time.Now(); ; {
		a, last := s.compare(r)
		if a.Missing == 0 || ctx.Err() != nil || time.Since(began) > patience && time.Since(last) > patience {
			return a
		}
		time.Sleep(20 * time.Millisecond)
	}
}

func (s *Sink) compare(r *Result) (a Arrivals, last time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	a.Unmarked = s.unmarked
	for _, id := range r.ids {
		switch n := s.arrived[id]; {
		case n == r.copies:
			a.Exact++
		case n < r.copies:
			a.Missing++
		default:
			a.Repeated++
		}
	}
	accepted := make(map[uint64]bool, len(r.ids))
	for _, id := range r.ids {
		accepted[id] = true
	}
	for id := range s.arrived {
		if uint32(id>>32) == r.prefix && !accepted[id] {
			a.Ghosts++
		}
	}
	return a, s.last
}

// Forget forgets what arrived.
func (s *Sink) Forget() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.arrived, s.unmarked = map[uint64]int{}, 0
}
