package records

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/smtp2rest/smtp2rest/relay"
	"github.com/smtp2rest/smtp2rest/relay/history"
	"github.com/smtp2rest/smtp2rest/relay/history/historytest"
	"github.com/smtp2rest/smtp2rest/relay/suppress"
)

// backend is the store as historytest wants it.
type backend struct {
	*Store
	dir string
}

func (b *backend) AddEvent(e relay.Event) error {
	return b.durable(context.Background(), func(t *tx) error {
		_, err := t.insertEvent(e, suppress.Normalise(e.Email))
		return err
	})
}

func (b *backend) Restart() (err error) {
	if err := b.Close(); err != nil {
		return err
	}
	b.Store, err = Open(Options{Dir: b.dir, Log: quiet()})
	return err
}

func TestHistoryKeepsItsContract(t *testing.T) {
	base := t.TempDir()
	historytest.Run(t, func(tb historytest.TB) historytest.Backend {
		dir, err := os.MkdirTemp(base, "") // removed after each case: there may be many thousand
		if err != nil {
			tb.Fatal(err)
		}
		s, err := Open(Options{Dir: dir, Log: quiet()})
		if err != nil {
			tb.Fatal(err)
		}
		b := &backend{s, dir}
		tb.Cleanup(func() { _ = errors.Join(b.Close(), os.RemoveAll(dir)) })
		return b
	})
}

// TestForgottenBytesAreGone fills a file, changes it in many ways, forgets one
// address, and reads the file.
func TestForgottenBytesAreGone(t *testing.T) {
	dir := t.TempDir()
	s := openTest(t, dir, Options{})
	at := time.Now().Add(-time.Hour)
	for i := range 900 {
		at = at.Add(time.Millisecond)
		m := &relay.Message{ID: relay.NewID(at), ReceivedAt: at, From: "shop@example.com",
			Recipients: []string{fmt.Sprintf("user%d@example.net", i), fmt.Sprintf("other%d@example.net", i)}}
		if i%7 == 0 {
			m.Recipients[0] = "Carol.Forgotten@Example.NET"
		}
		if i%11 == 0 {
			m.From = "carol.forgotten@example.net"
		}
		facts := []history.Fact{history.NewCame(m, history.Head{MessageID: fmt.Sprint(i, "@x"), Subject: "for carol.forgotten@example.net"})}
		for _, to := range m.Recipients {
			for n := range i % 5 {
				facts = append(facts, history.Tried{ID: m.ID, From: m.From, To: to, Number: n, Outcome: relay.Outcome{Detail: strings.Repeat("x", i%900) + to}, At: at})
			}
			facts = append(facts, history.Tried{ID: m.ID, From: m.From, To: to, Outcome: relay.Outcome{Kind: relay.Accepted, MessageID: fmt.Sprint("msg_", i, to)}, At: at})
		}
		for _, f := range facts { // as they come, so that rows grow and pages split
			must(t, s.Write(t.Context(), history.Changes(f)))
			if i%3 == 0 {
				break
			}
		}
		if i%3 == 0 {
			must(t, s.Write(t.Context(), history.Changes(facts...)))
		}
	}
	_, err := s.Prune(t.Context(), at.Add(-600*time.Millisecond), 200, true)
	must(t, err)
	if !found(t, dir, "carol.forgotten") {
		t.Fatal("the test looks in the wrong place")
	}
	done, err := s.Forget(t.Context(), "carol.forgotten@example.net", nil)
	must(t, err)
	if found(t, dir, "carol.forgotten") {
		t.Error("the address is still in the files")
	}
	if !done.Clean || done.Mails == 0 || done.Recipients == 0 {
		t.Errorf("%+v", done)
	}
	must(t, s.Close())
	if found(t, dir, "carol.forgotten") {
		t.Error("the address came back when the file was closed")
	}
}

func found(t *testing.T, dir, word string) bool {
	t.Helper()
	for _, name := range []string{FileName, FileName + "-wal"} {
		b, err := os.ReadFile(filepath.Join(dir, name))
		if os.IsNotExist(err) {
			continue
		}
		must(t, err)
		if bytes.Contains(bytes.ToLower(b), []byte(word)) {
			return true
		}
	}
	return false
}
