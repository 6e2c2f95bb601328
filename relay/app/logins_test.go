package app

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"log/slog"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/smtp2rest/smtp2rest/relay/queue"
	"github.com/smtp2rest/smtp2rest/relay/store"
	"github.com/smtp2rest/smtp2rest/smtpd/auth"
)

type noMarks = queue.Marks // by another name, because oneMark has a method of this one

// oneMark is a store of marks with one mark in it.
type oneMark struct {
	noMarks
	value string
	sets  int
	err   error
}

func (m *oneMark) Mark(context.Context, string) (string, error) { return m.value, nil }

func (m *oneMark) SetMark(_ context.Context, _, value string) error {
	m.sets++
	if m.err == nil {
		m.value = value
	}
	return m.err
}

// Logins are written within a minute, once for each change; what cannot be
// written is said once and tried again.
func TestLoginsAreWritten(t *testing.T) {
	hash := hasher(t)("x")
	synctest.Test(t, func(t *testing.T) {
		users, err := auth.New(auth.Options{Users: []auth.User{{Name: "app", Hash: hash}}})
		if err != nil {
			t.Fatal(err)
		}
		var log bytes.Buffer
		marks := &oneMark{value: "{no list"}
		k := newSavedLogins(users, marks, slog.New(slog.NewTextHandler(&log, nil)))
		if err := k.restore(t.Context()); err != nil {
			t.Fatal(err)
		}
		login := func(addr string) {
			v, err := users.Check(t.Context(), netip.MustParseAddr(addr), auth.Credentials{User: "app", Password: "x"})
			if err != nil || v.User == nil {
				t.Fatal(v, err)
			}
		}
		login("192.0.2.1")
		k.start()
		want := `[{"User":"app","From":"192.0.2.1/32"}]`
		for range 3 {
			time.Sleep(loginsTime)
			synctest.Wait()
			login("192.0.2.1")
		}
		if marks.value != want || marks.sets != 1 {
			t.Errorf("%s after %d writes", marks.value, marks.sets)
		}
		marks.err = errors.New("disk full")
		login("192.0.2.2")
		time.Sleep(3 * loginsTime)
		synctest.Wait()
		if n := strings.Count(log.String(), "disk full"); n != 1 || marks.sets != 4 || marks.value != want {
			t.Errorf("said %d times, tried %d times, %s", n, marks.sets, marks.value)
		}
		marks.err = nil
		k.stop()
		if !strings.Contains(marks.value, "192.0.2.2/32") {
			t.Errorf("at the end %s", marks.value)
		}
	})
}

// A restart does not forget who was known.
func TestLoginsOutliveARestart(t *testing.T) {
	c := load(t, "https://api.example.com/api", toml(t, "[[user]]\nname = \"app\"\npassword_hash = \""+hasher(t)("x")+"\"\n"))
	for i := range 2 {
		a, _ := newApp(c)
		if err := a.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
		if i == 0 {
			c := dial(t, a.Addrs()[0].String())
			c.want("220 ")
			for _, step := range [][2]string{{"EHLO c", "250 "}, {"AUTH PLAIN " + base64.StdEncoding.EncodeToString([]byte("\x00app\x00x")), "235 "}} {
				c.send(step[0] + "\r\n")
				c.want(step[1])
			}
		}
		if err := stop(a, patience); err != nil {
			t.Fatal(err)
		}
		// The end writes whom the daemon knows then.
		s, err := store.Open(t.Context(), store.SQLite(c.Queue.DataDir), store.Options{})
		if err != nil {
			t.Fatal(err)
		}
		got, err := s.Queue.Mark(t.Context(), markLogins)
		if want := `[{"User":"app","From":"127.0.0.1/32"}]`; err != nil || got != want {
			t.Errorf("run %d ends with %s, %v, want %s", i, got, err, want)
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
}
