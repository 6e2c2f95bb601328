package webserver

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	patience = 30 * time.Second
	crowd    = 900
)

// network has clients at any address connect to a server.
type network struct {
	net.Listener
	mu   sync.Mutex
	from map[string]net.Addr // by the client's real address
}

// placed is a connection from another address than it really is.
type placed struct {
	net.Conn
	from net.Addr
}

func (c placed) RemoteAddr() net.Addr { return c.from }

func (n *network) Accept() (net.Conn, error) {
	c, err := n.Listener.Accept()
	if err != nil {
		return nil, err
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	return placed{c, n.from[c.RemoteAddr().String()]}, nil
}

// dial connects from an address, or says that it was not possible.
func (n *network) dial(t *testing.T, from string) net.Conn {
	t.Helper()
	c, err := n.connect(from)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

func (n *network) connect(from string) (net.Conn, error) {
	n.mu.Lock() // nobody is accepted whose address is not known
	defer n.mu.Unlock()
	c, err := net.DialTimeout("tcp", n.Addr().String(), patience)
	if err != nil {
		return nil, err
	}
	n.from[c.LocalAddr().String()] = net.TCPAddrFromAddrPort(netip.MustParseAddrPort(from))
	return c, c.SetDeadline(time.Now().Add(patience))
}

func serve(t *testing.T, l Limits, h http.HandlerFunc) (*Server, *network) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	stopping := func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusServiceUnavailable) }
	n := &network{Listener: ln, from: map[string]net.Addr{}}
	listen := func(context.Context) (net.Listener, error) { return n, nil }
	s := New(Options{Handler: h, Stopping: http.HandlerFunc(stopping), Listen: listen, Limits: l})
	if err := s.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if err := s.Stop(ctx); err != nil {
			t.Error(err)
		}
	})
	return s, n
}

func hello(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "hello") }

const get = "GET / HTTP/1.1\r\nHost: x\r\n\r\n"

// answered reports whether a request on c is answered.
func answered(c net.Conn, request string) error {
	if _, err := io.WriteString(c, request); err != nil {
		return err
	}
	resp, err := http.ReadResponse(bufio.NewReader(c), nil)
	if err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, resp.Body)
	if err = errors.Join(err, resp.Body.Close()); err == nil && resp.StatusCode != http.StatusOK {
		err = errors.New(resp.Status)
	}
	return err
}

// held is how many connections the server has, of all and of one address at most.
func (s *Server) held() (all, ofOne int) {
	s.listener.mu.Lock()
	defer s.listener.mu.Unlock()
	count := map[netip.Prefix]int{}
	for c := range s.listener.conns {
		count[c.from]++
		ofOne = max(ofOne, count[c.from])
	}
	return len(s.listener.conns), ofOne
}

// What a crowd can do: be silent, send by the drop, or send requests and keep the
// connection. Whatever it does, it has no more connections than it may, and
// somebody else is answered.
func TestACrowdKeepsNobodyOut(t *testing.T) {
	one := func(int) string { return "192.0.2.7:1" }
	network := func(n int) string { return fmt.Sprintf("[2001:db8::%x]:1", n+1) }
	many := func(n int) string { return fmt.Sprintf("10.1.%d.%d:1", n/250, n%250+1) }
	for name, tt := range map[string]struct {
		from    func(int) string
		says    string
		ofOne   int
		patient bool
	}{
		"silent, of one address":       {one, "", 8, false},
		"silent, of one IPv6 network":  {network, "", 8, false},
		"silent, of many addresses":    {many, "", 1, true},
		"slow header, of one address":  {one, "GET / HTTP/1.1\r\n", 8, false},
		"slow header, of many":         {many, "GET / HTTP/1.1\r\n", 1, true},
		"slow body, of many":           {many, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nabc", 1, true},
		"idle after a request":         {one, get, 8, false},
		"idle after a request of many": {many, get, 1, true},
	} {
		t.Run(name, func(t *testing.T) {
			// The header time and the like are long: it is the bounds that are looked at.
			s, n := serve(t, Limits{Connections: 16, Grace: time.Millisecond, HeaderTime: patience, RequestTime: patience, IdleTime: patience}, func(w http.ResponseWriter, r *http.Request) {
				if _, err := io.Copy(io.Discard, r.Body); err == nil {
					hello(w, r)
				}
			})
			for i := range crowd {
				c := n.dial(t, tt.from(i))
				_, _ = io.WriteString(c, tt.says) // who is refused has to hear it
				if i%100 == 0 {
					if all, ofOne := s.held(); all > 16 || ofOne > tt.ofOne {
						t.Fatalf("%d connections are held, %d of one address", all, ofOne)
					}
				}
			}
			if err := answered(n.dial(t, "198.51.100.1:1"), get); err != nil {
				t.Error("somebody else:", err)
			}
			if all, ofOne := s.held(); all > 16 || ofOne > tt.ofOne {
				t.Errorf("%d connections are held, %d of one address", all, ofOne)
			}
		})
	}
}

// A few addresses that connect without end, faster than connections grow old,
// keep out nobody who comes once from another address: not even for a moment, for
// the accept loop does not wait for them.
func TestAFloodKeepsNobodyOut(t *testing.T) {
	few := func(n int) string { return fmt.Sprintf("192.0.2.%d:1", n%6+1) }
	many := func(n int) string { return fmt.Sprintf("10.1.%d.%d:1", n/250%250, n%250+1) }
	for name, tt := range map[string]struct {
		from  func(int) string
		says  string
		grace time.Duration
	}{
		// While the flood lasts no connection grows as old as the grace.
		"silent":             {few, "", patience},
		"slow header":        {few, "GET / HTTP/1.1\r\n", patience},
		"slow body":          {few, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nabc", patience},
		"silent, of a crowd": {many, "", 0},
	} {
		t.Run(name, func(t *testing.T) {
			s, n := serve(t, Limits{Connections: 64, Grace: tt.grace}, func(w http.ResponseWriter, r *http.Request) {
				if _, err := io.Copy(io.Discard, r.Body); err == nil {
					hello(w, r)
				}
			})
			for end := flood(t, n, tt.from, tt.says); ; {
				if all, _ := s.held(); all == 64 {
					defer end()
					break
				}
				runtime.Gosched()
			}
			var slowest time.Duration
			for _, honest := range []string{"127.0.0.1:1", "198.51.100.1:1", "[2001:db8::1]:1", "127.0.0.1:1", "127.0.0.1:1"} {
				begin := time.Now()
				if err := answered(n.dial(t, honest), get); err != nil {
					t.Errorf("%s: %v", honest, err)
				}
				slowest = max(slowest, time.Since(begin))
			}
			t.Log("the slowest of those who were answered:", slowest)
			if slowest > time.Second { // 5 ms on an idle machine
				t.Error("it took", slowest)
			}
		})
	}
}

// flood opens a thousand connections a second until it is told to stop, and leaves
// the last 5,000 open.
func flood(t *testing.T, n *network, from func(int) string, says string) (end func()) {
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		pace := time.NewTicker(time.Millisecond)
		defer pace.Stop()
		var open []net.Conn
		defer func() {
			for _, c := range open {
				_ = c.Close()
			}
		}()
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			case <-pace.C:
			}
			c, err := n.connect(from(i))
			if err != nil {
				t.Error(err)
				return
			}
			_, _ = io.WriteString(c, says)
			if open = append(open, c); len(open) > 5000 {
				_ = open[0].Close()
				open = open[1:]
			}
		}
	}()
	return func() { close(stop); <-done }
}

// Requests of those who may ask are not cut off to make room: others wait.
func TestTheTrustedKeepTheirPlace(t *testing.T) {
	var waiting sync.WaitGroup
	waiting.Add(4)
	release := make(chan struct{})
	_, n := serve(t, Limits{Connections: 4, Grace: time.Millisecond}, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/slow" {
			Trust(r.Context())
			waiting.Done()
			<-release
		}
		hello(w, r)
	})
	results := make(chan error, 5)
	for i := range 4 {
		c := n.dial(t, fmt.Sprintf("192.0.2.%d:1", i+1))
		go func() { results <- answered(c, "GET /slow HTTP/1.1\r\nHost: x\r\n\r\n") }()
	}
	waiting.Wait()
	late := n.dial(t, "198.51.100.1:1")
	go func() { results <- answered(late, get) }()
	select {
	case err := <-results:
		t.Errorf("somebody did not wait: %v", err)
	case <-time.After(100 * time.Millisecond):
	}
	close(release)
	for range 5 {
		if err := <-results; err != nil {
			t.Error(err)
		}
	}
}

// No more requests are dealt with at once than there may be connections.
func TestRequestsAtOnceAreBounded(t *testing.T) {
	var now, most atomic.Int64
	_, n := serve(t, Limits{Connections: 16}, func(w http.ResponseWriter, r *http.Request) {
		at := now.Add(1)
		defer now.Add(-1)
		for m := most.Load(); at > m && !most.CompareAndSwap(m, at); m = most.Load() {
		}
		hello(w, r)
	})
	var wg sync.WaitGroup
	for i := range crowd {
		c := n.dial(t, fmt.Sprintf("10.1.%d.%d:1", i/250, i%250+1))
		wg.Go(func() { _ = answered(c, get); _ = c.Close() })
	}
	wg.Wait()
	if most.Load() > 16 || most.Load() == 0 {
		t.Errorf("%d requests at once", most.Load())
	}
}

// Each bound on time ends a connection by itself.
func TestTimes(t *testing.T) {
	const short = 50 * time.Millisecond
	big := func(w http.ResponseWriter, _ *http.Request) {
		for block := make([]byte, 1<<20); ; {
			if _, err := w.Write(block); err != nil {
				return
			}
		}
	}
	long := Limits{HeaderTime: patience, RequestTime: patience, WriteTime: patience, IdleTime: patience}
	with := func(change func(*Limits)) Limits { l := long; change(&l); return l }
	for name, tt := range map[string]struct {
		limits  Limits
		handler http.HandlerFunc
		says    string
	}{
		"header":  {with(func(l *Limits) { l.HeaderTime = short }), hello, "GET / HTTP/1.1\r\nHost: x\r\n"},
		"request": {with(func(l *Limits) { l.RequestTime = short }), func(_ http.ResponseWriter, r *http.Request) { _, _ = io.Copy(io.Discard, r.Body) }, "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nabc"},
		"idle":    {with(func(l *Limits) { l.IdleTime = short }), hello, get},
	} {
		t.Run(name, func(t *testing.T) {
			_, n := serve(t, tt.limits, tt.handler)
			c := n.dial(t, "192.0.2.7:1")
			_, _ = io.WriteString(c, tt.says)
			if _, err := io.Copy(io.Discard, c); err != nil && errors.Is(err, context.DeadlineExceeded) {
				t.Error(err)
			}
		})
	}
	t.Run("write", func(t *testing.T) {
		gone := make(chan struct{})
		_, n := serve(t, with(func(l *Limits) { l.WriteTime = short }), func(w http.ResponseWriter, r *http.Request) { big(w, r); close(gone) })
		_, _ = io.WriteString(n.dial(t, "192.0.2.7:1"), get) // and reads nothing
		select {
		case <-gone:
		case <-time.After(patience):
			t.Error("it still writes")
		}
	})
}

func TestHeadersAreBounded(t *testing.T) {
	_, n := serve(t, Limits{Connections: crowd, PerAddress: crowd}, hello)
	var all sync.WaitGroup
	for range crowd {
		c := n.dial(t, "192.0.2.7:1")
		all.Go(func() {
			_, _ = io.WriteString(c, "GET / HTTP/1.1\r\nX: "+strings.Repeat("x", 64<<10)+"\r\n\r\n")
			// What is left unread when the server hangs up may take the answer with it.
			if answer, err := io.ReadAll(c); err == nil && !strings.HasPrefix(string(answer), "HTTP/1.1 431 ") {
				t.Errorf("%q", answer)
			}
		})
	}
	all.Wait()
}

func TestStop(t *testing.T) {
	begun, release := make(chan struct{}), make(chan struct{})
	s, n := serve(t, Limits{}, func(w http.ResponseWriter, r *http.Request) {
		close(begun)
		<-release
		hello(w, r)
	})
	silent, c := n.dial(t, "192.0.2.7:1"), n.dial(t, "192.0.2.7:1")
	got := make(chan error, 1)
	go func() { got <- answered(c, get) }()
	<-begun
	time.AfterFunc(10*time.Millisecond, func() { close(release) })
	if err := s.Stop(t.Context()); err != nil {
		t.Error(err)
	}
	if err := <-got; err != nil {
		t.Error(err)
	}
	if _, err := io.ReadAll(silent); err != nil && !strings.Contains(err.Error(), "reset") {
		t.Error(err)
	}
	if s.Start(t.Context()) == nil {
		t.Error("started again")
	}
}
