package web

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// Whoever tries tokens from many addresses, or logs in all the time, fills no memory.
func TestTablesAreBounded(t *testing.T) {
	a := newAttempts()
	for i := range maxAddresses + 500 {
		a.wrong(fmt.Sprintf("10.%d.%d.%d:1", i>>16, i>>8&255, i&255), time.Now())
	}
	if n := a.from.Len(); n != maxAddresses {
		t.Errorf("%d addresses are remembered", n)
	}
	s := newSessions()
	first := s.begin(Operator{Name: "a"}, time.Now())
	for range maxSessions {
		s.begin(Operator{Name: "b"}, time.Now())
	}
	if _, ok := s.get(first, time.Now()); ok || s.list.Len() != maxSessions {
		t.Errorf("%d sessions are kept, the oldest %v", s.list.Len(), ok)
	}
}

func TestAttemptsAndSessionsInTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAttempts()
		const thief = "192.0.2.1:4711"
		for range freeAttempts {
			if !a.may(thief, time.Now()) {
				t.Fatal("shut out too early")
			}
			a.wrong(thief, time.Now())
		}
		if a.may(thief, time.Now()) || a.may("192.0.2.1:1", time.Now()) || !a.may("192.0.2.2:1", time.Now()) {
			t.Error("the limit is not one of the address")
		}
		s := newSessions()
		key := s.begin(Operator{Name: "a"}, time.Now())
		time.Sleep(attemptEvery)
		if !a.may(thief, time.Now()) {
			t.Error("shut out for ever")
		}
		time.Sleep(sessionTime - attemptEvery)
		if _, ok := s.get(key, time.Now()); !ok {
			t.Error("the session ended too early")
		}
		time.Sleep(time.Second)
		if _, ok := s.get(key, time.Now()); ok || s.list.Len() != 0 {
			t.Error("the session does not end")
		}
	})
}

func TestWhatTurnsTextAroundIsReplaced(t *testing.T) {
	got := string(visible([]byte("a\x00b\u202ec\xffd\u2066e\x1b[2Jf\u009bg\nh\u061ci 👩\u200d🚀")))
	if want := "a\ufffdb\ufffdc\ufffdd\ufffde\ufffd[2Jf\ufffdg\nh\ufffdi 👩\u200d🚀"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

// A token has no more than its hash in the configuration, and two are never the same.
func TestTokens(t *testing.T) {
	a, b := NewToken(), NewToken()
	if a == b || len(a) < 30 || strings.Contains(Hash(a), a) || Hash(a) == Hash(b) {
		t.Errorf("the tokens %q and %q", a, b)
	}
}

// What is sent to a browser is small, all of it.
func TestFilesAreSmall(t *testing.T) {
	plain, squeezed := 0, 0
	for _, f := range loadFiles() {
		plain, squeezed = plain+len(f.plain), squeezed+len(f.squeezed)
	}
	t.Logf("all files have %d bytes, %d with gzip", plain, squeezed)
	if plain == 0 || plain > 150<<10 {
		t.Errorf("all files have %d bytes", plain)
	}
}
