package sqlite

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/smtp2rest/smtp2rest/relay"
	"github.com/smtp2rest/smtp2rest/relay/history"
)

// TestForgottenBytesAreGone fills a file, changes it in many ways, forgets one
// address, and reads the file.
func TestForgottenBytesAreGone(t *testing.T) {
	dir := t.TempDir()
	s := openRecords(t, dir, Options{})
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
	for _, name := range []string{RecordsFile, RecordsFile + "-wal"} {
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

// A name is found by an index, however long the history is.
func TestNamesAreFoundByAnIndex(t *testing.T) {
	s := openRecords(t, t.TempDir(), Options{})
	for what, q := range map[string]history.Query{
		"a name": {Name: "bob@example.net"}, "a local part": {Name: "bob"}, "a recipient": {Recipient: "bob@example.net"}, "a sender": {Sender: "bob@example.net"}, "an id": {ID: "06h1"},
	} {
		text, args, err := dialect().Find(mailFields, q)
		must(t, err)
		must(t, s.read(t.Context(), func(c *conn) error {
			return c.Each(func(r row) error {
				if step := r.Text(3); strings.HasPrefix(step, "SCAN mail") || strings.HasPrefix(step, "SCAN m") || strings.HasPrefix(step, "SCAN r") {
					t.Errorf("%s: %s", what, step)
				}
				return nil
			}, "EXPLAIN QUERY PLAN "+text, args...)
		}))
	}
}

// The newest mails of a sender are found without a look at all others of the same sender.
func TestASenderOfManyMailsIsFoundAtOnce(t *testing.T) {
	s := openRecords(t, t.TempDir(), Options{})
	at := time.Now().Add(-time.Hour)
	for range 4 {
		var changes []history.Change
		for range 2000 {
			at = at.Add(time.Millisecond)
			changes = append(changes, history.Change{ID: relay.NewID(at), Received: at, Sender: "shop@example.com", Recipients: []history.RecipientChange{{Addr: "bob@example.net"}}})
		}
		must(t, s.Write(t.Context(), changes))
	}
	fastest := func(q history.Query) time.Duration {
		least := time.Hour
		for range 3 {
			began := time.Now()
			found, cursor, err := s.Find(t.Context(), q)
			must(t, err)
			if len(found) != 100 || cursor == "" || !found[0].Received.Equal(at.Truncate(time.Millisecond)) {
				t.Fatalf("found %d, of %v at first", len(found), found[0].Received)
			}
			least = min(least, time.Since(began))
		}
		return least
	}
	for _, name := range []string{"shop@example.com", "bob@example.net"} {
		q := history.Query{Name: name, Limit: 100}
		newest := fastest(q)
		q.States = history.States() // with a state, each mail has to be looked at
		if all := fastest(q); newest > all/3 {
			t.Errorf("%s: the newest take %v, and all %v", name, newest, all)
		}
	}
}
