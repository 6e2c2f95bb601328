package sandbox

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"testing"
	"time"
)

// TestStopEndsHangingCalls stops the sandbox during every kind of call that takes
// time.
func TestStopEndsHangingCalls(t *testing.T) {
	s := start(t, Options{})
	c := client(t)
	var calls sync.WaitGroup
	for _, local := range []string{"timeout", "timeout", "slow", "slow+10m"} {
		calls.Go(func() {
			if g, err := call(t, c, s.sendURL(), bodyTo(local+"@example.net"), nil); err == nil {
				t.Errorf("%s@ got %+v", local, g)
			}
		})
	}
	// There are also a connection that was never used, and one in the middle of its
	// headers. http.Server.Shutdown would wait for either.
	for _, text := range []string{"", "POST / HT"} {
		conn, err := net.Dial("tcp", s.Addr())
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		if _, err := io.WriteString(conn, text); err != nil {
			t.Fatal(err)
		}
	}
	if err := s.WaitFor(t.Context(), func(st Stats) bool { return st.InFlight == 4 && st.ByStatus[0] == 2 }); err != nil {
		t.Fatal(err)
	}
	begun := time.Now()
	if err := s.Stop(t.Context()); err != nil {
		t.Error(err)
	}
	if took := time.Since(begun); took > time.Second {
		t.Errorf("Stop took %v", took)
	}
	calls.Wait()
	if st := s.Stats(); st.Accepted != 0 || st.InFlight != 0 || st.ByStatus[0] != 4 {
		t.Errorf("%+v", st)
	}
	if _, err := call(t, c, s.sendURL(), good, nil); err == nil {
		t.Error("the sandbox answers after Stop")
	}
}

// TestStopCutsStalledBodies has a client that never finishes its request.
func TestStopCutsStalledBodies(t *testing.T) {
	s := start(t, Options{})
	conn, err := net.Dial("tcp", s.Addr())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprintf(conn, "POST %s HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\n{", s.path)
	if err := s.WaitFor(t.Context(), func(st Stats) bool { return st.InFlight == 1 }); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancelCause(t.Context())
	enough := errors.New("enough")
	cancel(enough)
	if err := s.Stop(ctx); !errors.Is(err, enough) {
		t.Error(err)
	}
	if calls := s.Calls(); len(calls) != 1 || calls[0].Status != 0 || calls[0].Error != "aborted: the client left in the middle of its request" {
		t.Errorf("%+v", calls)
	}
}

func TestLifeCycle(t *testing.T) {
	s := New(Options{})
	if s.Addr() != "" || s.URL() != "" {
		t.Error("an address before Start")
	}
	if err := s.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	if s.URL() != "http://"+s.Addr()+"/api" {
		t.Error(s.URL())
	}
	if s.Start(t.Context()) == nil {
		t.Error("started twice")
	}
	if err := New(Options{Address: s.Addr()}).Start(t.Context()); err == nil {
		t.Error("two on one address")
	}
	var stops sync.WaitGroup
	for range 4 {
		stops.Go(func() {
			if err := s.Stop(t.Context()); err != nil {
				t.Error(err)
			}
		})
	}
	stops.Wait()
	if s.Start(t.Context()) == nil {
		t.Error("started after Stop")
	}

	never := New(Options{})
	if err := never.Stop(t.Context()); err != nil {
		t.Error(err)
	}
	if never.Start(t.Context()) == nil {
		t.Error("started after Stop")
	}
}

// TestStopLosesNoAnswers stops under load. Every call that was counted as accepted got
// its answer.
func TestStopLosesNoAnswers(t *testing.T) {
	s := start(t, Options{})
	c := client(t)
	var mu sync.Mutex
	var callers sync.WaitGroup
	answered := 0
	for range 8 {
		callers.Go(func() {
			for {
				g, err := call(t, c, s.sendURL(), good, nil)
				if err != nil || g.status != http.StatusOK {
					return
				}
				mu.Lock()
				answered++
				mu.Unlock()
			}
		})
	}
	if err := s.WaitFor(t.Context(), func(st Stats) bool { return st.Accepted > 200 }); err != nil {
		t.Fatal(err)
	}
	if err := s.Stop(t.Context()); err != nil {
		t.Error(err)
	}
	callers.Wait()
	if st := s.Stats(); st.Accepted != answered {
		t.Errorf("%d accepted, %d answered", st.Accepted, answered)
	}
}
