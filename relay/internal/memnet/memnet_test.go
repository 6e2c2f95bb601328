package memnet

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"testing"
	"testing/synctest"
	"time"
)

// Virtual time goes on while a client waits an hour for an answer.
func TestHTTPInVirtualTime(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := Listen()
		server := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			time.Sleep(time.Hour)
			_, _ = io.WriteString(w, "at last")
		})}
		go func() { _ = server.Serve(l) }()
		transport := &http.Transport{DialContext: l.Dial}
		defer transport.CloseIdleConnections()
		defer server.Close()
		begin := time.Now()
		answer, err := (&http.Client{Transport: transport}).Get("http://anything.example/")
		if err != nil {
			t.Fatal(err)
		}
		defer answer.Body.Close()
		if body, err := io.ReadAll(answer.Body); string(body) != "at last" || err != nil {
			t.Errorf("the answer is %q, %v", body, err)
		}
		if took := time.Since(begin); took != time.Hour {
			t.Errorf("it took %s", took)
		}
	})
}

func TestNobodyThere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := Listen()
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if _, err := l.Dial(ctx, "tcp", "a:1"); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("with nobody to accept: %v", err)
		}
		_ = l.Close()
		_ = l.Close()
		if _, err := l.Dial(t.Context(), "tcp", "a:1"); !errors.Is(err, net.ErrClosed) {
			t.Errorf("after Close: %v", err)
		}
		if _, err := l.Accept(); !errors.Is(err, net.ErrClosed) {
			t.Errorf("Accept after Close: %v", err)
		}
	})
}
