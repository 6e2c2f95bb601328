package spool

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// spoolDir is a directory as our package makes it.
func spoolDir(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	if err := unix.Chmod(dir, 0o3733); err != nil {
		t.Fatal(err)
	}
	return dir
}

func keep(t *testing.T, dir string, m Mail) string {
	t.Helper()
	id, err := Keep(dir, m, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	return id
}

var letter = Mail{Host: "web1", From: "root@web1", Recipients: []string{"bob@example.net", "zoë@example.net"}, Data: []byte("Subject: s\r\n\r\nb\r\n")}

// edge plays the relay's listener. It answers each command by its beginning with what the
// test says; "." is the end of a mail.
type edge struct {
	t       *testing.T
	replies map[string]string

	mu      sync.Mutex
	said    []string
	ids     []string // of the mails that were taken
	refused []string // id and recipient
}

type edgeConn struct {
	net.Conn
	id string
}

func (c *edgeConn) Say(id string, _ uint32) { c.id = id }

func (e *edge) dial(context.Context) (Conn, error) {
	client, server := net.Pipe()
	c := &edgeConn{Conn: client}
	go e.serve(server, c)
	return c, nil
}

func (e *edge) serve(conn net.Conn, c *edgeConn) {
	defer func() { _ = conn.Close() }()
	_, _ = io.WriteString(conn, "220 edge\r\n")
	content := false
	for lines := bufio.NewScanner(conn); lines.Scan(); {
		line := lines.Text()
		if content && line != "." {
			continue
		}
		reply := "250 2.0.0 ok"
		switch {
		case line == ".":
			content = false
		case line == "DATA":
			reply = "354 go on"
		case strings.HasPrefix(line, "EHLO"):
			reply = "250-edge\r\n250-SMTPUTF8\r\n250-ENHANCEDSTATUSCODES\r\n250 SIZE"
		}
		e.mu.Lock()
		e.said = append(e.said, line)
		for begin, other := range e.replies {
			if strings.HasPrefix(line, begin) {
				reply = other
			}
		}
		if line == "." && strings.HasPrefix(reply, "250") {
			e.ids = append(e.ids, c.id)
		}
		e.mu.Unlock()
		content = reply == "354 go on"
		if reply == "hang up" {
			return
		}
		if _, err := io.WriteString(conn, reply+"\r\n"); err != nil {
			return
		}
	}
}

func (e *edge) keeper(dir string) *Keeper {
	return New(Options{
		Settings: Settings{Dir: dir, MaxAge: time.Hour}, Dial: e.dial,
		Refused: func(_ context.Context, kept Kept, _ Mail, list []Refused) error {
			for _, r := range list {
				e.refused = append(e.refused, kept.ID+" "+r.Recipient+" "+r.Reply)
			}
			return nil
		},
		Log: slog.New(slog.DiscardHandler),
	})
}

func left(t *testing.T, dir string) (names []string) {
	t.Helper()
	list, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range list {
		names = append(names, e.Name())
	}
	return names
}

func TestHandOver(t *testing.T) {
	for name, c := range map[string]struct {
		replies map[string]string
		gone    bool
		err     bool     // nothing else is tried now
		refused []string // recipients
		taken   bool
	}{
		"taken":                 {nil, true, false, nil, true},
		"one refused":           {map[string]string{"RCPT TO:<bob": "550 5.1.1 nobody"}, true, false, []string{"bob@example.net"}, true},
		"all refused":           {map[string]string{"RCPT": "550 5.1.1 nobody"}, true, false, letter.Recipients, false},
		"the sender refused":    {map[string]string{"MAIL": "553 5.7.1 not allowed"}, true, false, letter.Recipients, false},
		"the mail refused":      {map[string]string{".": "554 5.6.0 no"}, true, false, letter.Recipients, false},
		"later at MAIL":         {map[string]string{"MAIL": "450 4.7.1 rate"}, false, false, nil, false},
		"later at RCPT":         {map[string]string{"RCPT TO:<zo": "450 4.7.1 rate"}, false, false, nil, false},
		"later at the end":      {map[string]string{".": "452 4.3.1 full"}, false, false, nil, false},
		"the relay stops":       {map[string]string{"MAIL": "421 4.3.2 stopping"}, false, true, nil, false},
		"the relay dies":        {map[string]string{".": "hang up"}, false, true, nil, false},
		"dies after a refusal":  {map[string]string{"RCPT TO:<bob": "550 5.1.1 nobody", ".": "hang up"}, false, true, []string{"bob@example.net"}, false},
		"later, and one is not": {map[string]string{"RCPT TO:<bob": "550 5.1.1 nobody", "RCPT TO:<zo": "450 4.7.1 rate"}, false, false, []string{"bob@example.net"}, false},
	} {
		t.Run(name, func(t *testing.T) {
			dir := spoolDir(t)
			id := keep(t, dir, letter)
			e := &edge{t: t, replies: c.replies}
			k := e.keeper(dir)
			if _, err := k.round(t.Context(), time.Now()); (err != nil) != c.err {
				t.Errorf("the round: %v", err)
			}
			if names := left(t, dir); c.gone != (len(names) == 0) || !c.gone && !slices.Equal(names, []string{id}) {
				t.Errorf("left: %v", names)
			}
			var refused []string
			for _, r := range e.refused {
				words := strings.Fields(r)
				refused = append(refused, words[1])
				if !strings.HasPrefix(words[0], id) || len(words) < 3 {
					t.Errorf("refused: %s", r)
				}
			}
			if !slices.Equal(refused, c.refused) || c.taken != (len(e.ids) == 1) {
				t.Errorf("refused: %v; taken: %v", refused, e.ids)
			}
			if c.gone && k.State().Mails != 0 || !c.gone && k.State().Mails != 1 {
				t.Errorf("%+v", k.State())
			}
		})
	}
}

// What is handed over again has the same id, whatever became of the first time.
func TestTheIDIsTheSameAgain(t *testing.T) {
	dir := spoolDir(t)
	id := keep(t, dir, letter)
	e := &edge{t: t}
	for range 2 { // as two processes, of which the first died before the file was gone
		file, err := os.ReadFile(filepath.Join(dir, id))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := e.keeper(dir).round(t.Context(), time.Now()); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, id), file, 0o640); err != nil {
			t.Fatal(err)
		}
	}
	if !slices.Equal(e.ids, []string{id, id}) {
		t.Errorf("%v, want %s twice", e.ids, id)
	}
	if equal := keep(t, dir, letter); equal == id {
		t.Error("two equal mails have one id")
	}
}

// More recipients than the relay takes at once go in several transactions, each with an id
// that depends on its recipients alone.
func TestPartsHaveIDsOfTheirOwn(t *testing.T) {
	all := []string{"a@x", "b@x", "c@x"}
	ab, c := partID("06h33ofq4g7er3jv47il", all, all[:2]), partID("06h33ofq4g7er3jv47il", all, all[2:])
	if ab == c || ab != partID("06h33ofq4g7er3jv47il", all, []string{"a@x", "b@x"}) || partID("06h33ofq4g7er3jv47il", all, all) != "06h33ofq4g7er3jv47il" ||
		!strings.HasPrefix(ab, "06h33ofq4g7er3jv47il.") {
		t.Errorf("%s, %s", ab, c)
	}
}

// A mail that is not taken waits longer each time, is given up when it is old, and keeps
// nobody's else.
func TestAMailThatIsNotTaken(t *testing.T) {
	dir := spoolDir(t)
	old := time.Now().Add(-2 * time.Hour)
	if _, err := Keep(dir, letter, old); err != nil {
		t.Fatal(err)
	}
	e := &edge{t: t, replies: map[string]string{"MAIL FROM:<root@web1": "450 4.7.1 rate"}}
	k := e.keeper(dir)
	other := letter
	other.From = "ann@web1"
	keep(t, dir, other)
	now := time.Now()
	for try, after := range []time.Duration{0, 5 * time.Second, 15 * time.Second, 40 * time.Second} {
		if _, err := k.round(t.Context(), now.Add(after)); err != nil {
			t.Fatal(err)
		}
		if want := []int{1, 1, 1, 0}[try]; len(left(t, dir)) != want {
			t.Errorf("after try %d: %v", try, left(t, dir))
		}
	}
	if len(e.ids) != 1 || len(e.refused) != 2 || !strings.Contains(e.refused[0], "could not be handed over for too long") || !strings.Contains(e.refused[0], "450 4.7.1 rate") {
		t.Errorf("taken: %v; refused: %v", e.ids, e.refused)
	}
}

// Whatever is put into the directory, only whole mails are handed over, no link is followed
// and nothing is waited for.
func TestWhatIsNoMail(t *testing.T) {
	secret := filepath.Join(t.TempDir(), "shadow")
	if err := os.WriteFile(secret, []byte("root:$6$planted:19000\n"), 0o640); err != nil {
		t.Fatal(err)
	}
	name := func(n int) string { return fmt.Sprintf("06h33ofq4g7er3jv%04d", n) }
	for what, put := range map[string]func(path string) error{
		"a symbolic link":    func(path string) error { return os.Symlink(secret, path) },
		"a hard link":        func(path string) error { return os.Link(secret, path) },
		"a FIFO":             func(path string) error { return unix.Mkfifo(path, 0o640) },
		"a FIFO, unfinished": func(path string) error { return unix.Mkfifo(path, 0o600) },
		"a directory":        func(path string) error { return os.Mkdir(path, 0o750) },
		"a socket": func(path string) error {
			l, err := net.Listen("unix", path)
			t.Cleanup(func() { _ = l.Close() })
			return err
		},
		"another file":         func(path string) error { return os.WriteFile(path, []byte(format+"{}\n"), 0o640) },
		"an empty file":        func(path string) error { return os.WriteFile(path, nil, 0o640) },
		"a file of other mode": func(path string) error { return os.WriteFile(path, nil, 0o644) },
		"a huge file": func(path string) error {
			return errors.Join(os.WriteFile(path, nil, 0o640), os.Truncate(path, 1<<40))
		},
	} {
		t.Run(what, func(t *testing.T) {
			dir := spoolDir(t)
			if err := put(filepath.Join(dir, name(1))); err != nil {
				t.Fatal(err)
			}
			id := keep(t, dir, letter)
			e := &edge{t: t}
			if _, err := e.keeper(dir).round(t.Context(), time.Now()); err != nil {
				t.Fatal(err)
			}
			if !slices.Equal(e.ids, []string{id}) || len(e.refused) > 0 || !slices.Equal(left(t, dir), []string{asidePrefix + name(1)}) {
				t.Errorf("taken: %v; refused: %v; left: %v", e.ids, e.refused, left(t, dir))
			}
			k := e.keeper(dir)
			if _, err := k.round(t.Context(), time.Now()); err != nil || k.State().Aside != 1 || k.State().Mails != 0 {
				t.Errorf("%+v, %v", k.State(), err)
			}
		})
	}
	if text, err := os.ReadFile(secret); err != nil || string(text) != "root:$6$planted:19000\n" {
		t.Errorf("the other file is %q, %v", text, err)
	}
}

// A mail that somebody changed, or gave another's id, is none.
func TestAnIDIsMadeOfItsMail(t *testing.T) {
	dir := spoolDir(t)
	id := keep(t, dir, letter)
	content, err := os.ReadFile(filepath.Join(dir, id))
	if err != nil {
		t.Fatal(err)
	}
	if m, err := decode(id, uint32(os.Geteuid()), content); err != nil || m.From != letter.From || !slices.Equal(m.Recipients, letter.Recipients) || string(m.Data) != string(letter.Data) || m.Host != "web1" {
		t.Errorf("%+v, %v", m, err)
	}
	if _, err := decode(id, 12345, content); !errors.Is(err, ErrNotWhole) {
		t.Errorf("as another user's: %v", err)
	}
	for i := range content {
		changed := slices.Clone(content)
		changed[i] ^= 1
		if _, err := decode(id, uint32(os.Geteuid()), changed); !errors.Is(err, ErrNotWhole) {
			t.Fatalf("changed at %d: %v", i, err)
		}
		if _, err := decode(id, uint32(os.Geteuid()), content[:i]); !errors.Is(err, ErrNotWhole) {
			t.Fatalf("cut at %d: %v", i, err)
		}
	}
}

// A recipient cannot be a command of the session.
func TestNoCommandInAnAddress(t *testing.T) {
	for _, m := range []Mail{
		{Host: "h", From: "a@x", Recipients: []string{"b@x>\r\nDATA"}},
		{Host: "h", From: "a@x>\nRSET", Recipients: []string{"b@x"}},
		{Host: "h\r\nNOOP", From: "a@x", Recipients: []string{"b@x"}},
		{Host: "h", From: "a@x"},
	} {
		content, err := encode(m)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := decode(nameOf(time.Now(), 1, content), 1, content); !errors.Is(err, ErrNotWhole) {
			t.Errorf("%+v: %v", m, err)
		}
	}
}

// What is still being written is left alone, and removed a day after sendmail died.
func TestAnUnfinishedFile(t *testing.T) {
	dir := spoolDir(t)
	path := filepath.Join(dir, "06h33ofq4g7er3jv0001")
	if err := os.WriteFile(path, []byte("smtp2rest sendm"), 0o600); err != nil {
		t.Fatal(err)
	}
	k := (&edge{t: t}).keeper(dir)
	for _, age := range []time.Duration{0, 23 * time.Hour} {
		if _, err := k.round(t.Context(), time.Now().Add(age)); err != nil || len(left(t, dir)) != 1 {
			t.Errorf("after %s: %v, %v", age, left(t, dir), err)
		}
	}
	if _, err := k.round(t.Context(), time.Now().Add(25*time.Hour)); err != nil || len(left(t, dir)) != 0 {
		t.Errorf("after a day: %v, %v", left(t, dir), err)
	}
}

// One user's ten thousand files, which the relay does not take now, keep nobody's mail.
func TestManyFiles(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("it takes root to make files of two users")
	}
	dir := spoolDir(t)
	const many = 10_000
	for i := range many {
		path := filepath.Join(dir, fmt.Sprintf("06h00000000000%06d", i))
		if err := os.WriteFile(path, []byte("junk"), 0o640); err != nil {
			t.Fatal(err)
		}
		if err := os.Chown(path, 65534, -1); err != nil {
			t.Fatal(err)
		}
	}
	id := keep(t, dir, letter)
	d, err := open(dir)
	if err != nil {
		t.Fatal(err)
	}
	l, err := d.list(time.Now())
	if err != nil || l.mails != many+1 {
		t.Fatalf("%d listed, %v", l.mails, err)
	}
	known := 0
	for _, own := range l.owners {
		known += len(own)
	}
	if known != perOwner+1 {
		t.Errorf("%d files are known at once", known)
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	e := &edge{t: t}
	if _, err := e.keeper(dir).round(t.Context(), time.Now()); err != nil || !slices.Equal(e.ids, []string{id}) {
		t.Errorf("taken: %v, %v", e.ids, err)
	}
}

// Many users, each with few files, are bounded together; none of them is left out.
func TestFilesOfManyUsers(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("it takes root to make files of many users")
	}
	dir := spoolDir(t)
	const users, each = 100, mostListed/100 + 50
	for i := range users * each {
		path := filepath.Join(dir, fmt.Sprintf("06h00000000000%06d", i))
		if err := os.WriteFile(path, nil, 0o640); err != nil {
			t.Fatal(err)
		}
		if err := os.Chown(path, 70_000+i/each, -1); err != nil {
			t.Fatal(err)
		}
	}
	d, err := open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = d.Close() }()
	l, err := d.list(time.Now())
	if err != nil || l.mails != users*each || len(l.owners) != users {
		t.Fatalf("%d files of %d users, %v", l.mails, len(l.owners), err)
	}
	known := 0
	for _, own := range l.owners {
		known += len(own)
	}
	if known > mostListed+users {
		t.Errorf("%d files are known at once", known)
	}
}

func TestCheck(t *testing.T) {
	dir := spoolDir(t)
	for mode, want := range map[uint32]string{0o3733: "", 0o1733: "set-group-ID", 0o2733: "sticky", 0o3730: "other users cannot", 0o3777: "everybody can see"} {
		if err := unix.Chmod(dir, mode); err != nil {
			t.Fatal(err)
		}
		wrong, err := Check(dir, os.Geteuid())
		if err != nil || len(wrong) > 1 || !strings.Contains(strings.Join(wrong, ""), want) || want == "" && len(wrong) > 0 {
			t.Errorf("%o: %q, %v", mode, wrong, err)
		}
	}
	if wrong, err := Check(dir, 4711); err != nil || len(wrong) == 0 || !strings.Contains(wrong[0], "belongs to uid") {
		t.Errorf("of another: %q, %v", wrong, err)
	}
	if _, err := Check(filepath.Join(dir, "none"), 0); !errors.Is(err, os.ErrNotExist) {
		t.Error(err)
	}
}

func TestNotKept(t *testing.T) {
	dir := spoolDir(t)
	large := letter
	large.Data = make([]byte, MaxBytes)
	if _, err := Keep(dir, large, time.Now()); !errors.Is(err, ErrTooLarge) {
		t.Error(err)
	}
	if _, err := Keep(filepath.Join(dir, "none"), letter, time.Now()); !errors.Is(err, os.ErrNotExist) {
		t.Error(err)
	}
	if names := left(t, dir); len(names) > 0 {
		t.Errorf("left: %v", names)
	}
}
