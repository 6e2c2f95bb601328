package handover

import (
	"errors"
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

// says answers with one word on a Turn, until it is closed.
func says(t *testing.T, turn *Turn, word string) {
	t.Helper()
	var wg sync.WaitGroup
	t.Cleanup(func() { _ = turn.Close(); wg.Wait() })
	wg.Go(func() {
		for {
			conn, err := turn.Accept()
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

// A client that comes before any server leads waits. A client that comes after a
// change gets the new server. While servers change again and again, nobody is refused.
func TestHandover(t *testing.T) {
	s := listen(t)
	early := make(chan string, 1)
	go func() { early <- ask(t, s) }()
	first := s.Turn()
	says(t, first, "first")
	first.Lead()
	if got := <-early; got != "first" {
		t.Errorf("the early client hears %q", got)
	}
	second := s.Turn()
	says(t, second, "second")
	if got := ask(t, s); got != "first" {
		t.Errorf("before the change: %q", got)
	}
	second.Lead()
	_ = first.Close()
	if got := ask(t, s); got != "second" {
		t.Errorf("after the change: %q", got)
	}
	before := second
	for range 50 {
		next := s.Turn()
		says(t, next, "next")
		answer := make(chan string, 1)
		go func() { answer <- ask(t, s) }()
		next.Lead()
		_ = before.Close()
		if got := <-answer; got != "next" && got != "second" {
			t.Errorf("during a change: %q", got)
		}
		before = next
	}
}

// Closing a socket ends whoever waits for it.
func TestClose(t *testing.T) {
	s := listen(t)
	turn := s.Turn()
	says(t, turn, "x")
	turn.Lead()
	if got := ask(t, s); got != "x" {
		t.Errorf("%q", got)
	}
	s.Close()
	s.Close()
	if _, err := turn.Accept(); !errors.Is(err, net.ErrClosed) {
		t.Errorf("Accept: %v", err)
	}
	if _, err := net.DialTimeout("tcp", s.Addr().String(), patience); err == nil {
		t.Error("it still listens")
	}
	listen(t) // nobody ever leads, and it ends all the same
}
