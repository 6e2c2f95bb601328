package handover

import (
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const patience = 10 * time.Second

func listen(t *testing.T) *Socket {
	t.Helper()
	s, err := Listen(t.Context(), "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

// says answers every connection of l with one word, until l is closed.
func says(t *testing.T, l *Listener, word string) {
	t.Helper()
	var wg sync.WaitGroup
	t.Cleanup(func() { _ = l.Close(); wg.Wait() })
	wg.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				if !errors.Is(err, net.ErrClosed) {
					t.Errorf("Accept: %v", err)
				}
				return
			}
			_, _ = io.WriteString(conn, word)
			_ = conn.Close()
		}
	})
}

func ask(t *testing.T, s *Socket) string {
	t.Helper()
	conn, err := net.DialTimeout("tcp", s.Addr().String(), patience)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	_ = conn.SetDeadline(time.Now().Add(patience))
	said, err := io.ReadAll(conn)
	if err != nil {
		t.Fatal(err)
	}
	return string(said)
}

// A client that comes before any listener is active waits. A client that comes after a
// change gets the new server. While servers change again and again, nobody is refused.
func TestHandover(t *testing.T) {
	s := listen(t)
	early := make(chan string, 1)
	go func() { early <- ask(t, s) }()
	first := s.NewListener()
	says(t, first, "first")
	first.Activate()
	if got := <-early; got != "first" {
		t.Errorf("the early client hears %q", got)
	}
	second := s.NewListener()
	says(t, second, "second")
	if got := ask(t, s); got != "first" {
		t.Errorf("before the change: %q", got)
	}
	second.Activate()
	if got := ask(t, s); got != "second" {
		t.Errorf("after the change: %q", got)
	}
	before := "second"
	for i := range 50 {
		next, name := s.NewListener(), fmt.Sprintf("next %d", i)
		says(t, next, name)
		answer := make(chan string, 1)
		go func() { answer <- ask(t, s) }()
		next.Activate()
		if got := <-answer; got != name && got != before {
			t.Errorf("during change %d: %q", i, got)
		}
		if got := ask(t, s); got != name {
			t.Errorf("after change %d: %q", i, got)
		}
		before = name
	}
}

// Closing a socket ends whoever waits for it.
func TestClose(t *testing.T) {
	s := listen(t)
	l := s.NewListener()
	says(t, l, "x")
	l.Activate()
	if got := ask(t, s); got != "x" {
		t.Errorf("%q", got)
	}
	s.Close()
	s.Close()
	if _, err := l.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Accept: %v", err)
	}
	if _, err := net.DialTimeout("tcp", s.Addr().String(), patience); err == nil {
		t.Error("it still listens")
	}
	listen(t) // no listener is ever activated, but it ends
}

// A server that stops ends while a client waits, whoever comes next: a reload ends the
// server before, and a stop has no server after it.
func TestAServerEndsWhileAClientWaits(t *testing.T) {
	s := listen(t)
	answer := make(chan string, 1)
	go func() { answer <- ask(t, s) }()
	for range 100 { // Accept may see the client or the end first
		l := s.NewListener()
		l.Activate()
		_ = l.Close()
		ended := make(chan error, 1)
		go func() {
			_, err := l.Accept()
			ended <- err
		}()
		select {
		case err := <-ended:
			if !errors.Is(err, net.ErrClosed) {
				t.Fatalf("Accept: %v", err)
			}
		case <-time.After(patience):
			t.Fatal("Accept does not end")
		}
	}
	last := s.NewListener()
	says(t, last, "last")
	last.Activate()
	if got := <-answer; got != "last" {
		t.Errorf("the client hears %q", got)
	}
}
