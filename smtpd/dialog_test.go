package smtpd

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/crypto/bcrypt"

	"github.com/smtp2rest/smtp2rest/smtpd/auth"
	"github.com/smtp2rest/smtp2rest/smtpd/policy"
	"github.com/smtp2rest/smtp2rest/smtpd/reply"
)

// TestDialogs plays the files in testdata, each a whole session:
//
//	users              ann with the password right, bob who may send as bob@b.test only, cat who has three recipients an hour
//	lmtp               of the listener; "each" has a backend that answers each recipient
//	require_auth       of the listener
//	deny WHAT LIST     of everybody: senders or recipients; so does allow
//	auth_without_tls   of the listener
//	limit NAME VALUE   sets a field of Limits; of a Rate, the number in an hour
//	hurry NAME VALUE   shortens a time of Limits for the session from here on
//	networks           of the listener: none, instead of loopback
//	tls MODE           of the listener: starttls or implicit, with a certificate of its own
//	bug                one error is logged; else none may be
//	line: words        of docs/replies.md that the session is about
//	C: text            the client sends the text and CRLF
//	c: text            the client sends the text alone
//	C: (tls)           the client begins TLS
//	C: (close)         the client closes its side
//	S: text            the next line of the server is the text; a final … stands for anything
//	S: (close)         the server closes
//	M: from to: data   the backend has taken this message, the next one since the last M:
//	M: (none)          the backend has taken no further message
//
// Text knows \r \n \t \0 \\ \xHH and {text*COUNT}. What the server sends
// or the backend takes beyond the file is an error.
func TestDialogs(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatal("no dialogs", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			t.Parallel()
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			play(t, strings.Split(string(text), "\n"))
		})
	}
}

func play(t *testing.T, lines []string) {
	backend := &fakeBackend{}
	var settings []string
	var log records
	bugs := 0
	for _, l := range lines {
		if l == "bug" {
			bugs++
		}
		if word, _, _ := strings.Cut(l, " "); isSetting(word) {
			settings = append(settings, l)
		}
	}
	s := start(t, backend, func(o *Options) {
		o.Log = slog.New(slog.NewJSONHandler(&log, &slog.HandlerOptions{Level: slog.LevelError}))
		for _, setting := range settings {
			if err := configure(o, strings.Fields(setting)); err != nil {
				t.Fatal(err)
			}
		}
	})
	c, seen := dial(t, s), 0
	for i, l := range lines {
		kind, text, _ := strings.Cut(l, " ")
		text, err := unescape(text)
		if err == nil {
			if kind == "hurry" {
				err = hurry(s, func(o *Options) error { return configure(o, strings.Fields(l)) })
			} else {
				seen, err = c.step(kind, text, backend, seen)
			}
		}
		if err != nil {
			t.Fatalf("line %d: %s\n%v", i+1, l, err)
		}
	}
	_ = c.closeWrite()
	for l := c.line(); l != "EOF"; l = c.line() {
		t.Fatalf("the server also sent %q", l)
	}
	if mails := backend.took(); len(mails) > seen {
		t.Errorf("the backend also took %+v", mails[seen:])
	}
	waitFor(t, s, 0)
	if errors := log.all(t); len(errors) != bugs {
		t.Errorf("the log has %v", errors)
	}
}

func isSetting(word string) bool {
	return slices.Contains([]string{"limit", "networks", "tls", "users", "require_auth", "auth_without_tls", "lmtp", "deny", "allow"}, word)
}

// step does one line and returns how many messages have been seen.
func (c *client) step(kind, text string, b *fakeBackend, seen int) (int, error) {
	switch kind {
	case "", "#", "bug", "line:":
	case "C:":
		switch text {
		case "(close)":
			return seen, c.closeWrite()
		case "(tls)":
			return seen, c.secure(nil)
		}
		c.send(text + "\r\n")
	case "c:":
		c.send(text)
	case "S:":
		want, open := strings.CutSuffix(strings.ReplaceAll(text, "(close)", "EOF"), "…")
		if got := c.line(); got != want && !(open && strings.HasPrefix(got, want)) {
			return seen, fmt.Errorf("got %q", got)
		}
	case "M:":
		mails := b.took()[seen:]
		if text == "(none)" {
			if len(mails) > 0 {
				return seen, fmt.Errorf("got %+v", mails)
			}
			return seen, nil
		}
		if len(mails) == 0 {
			return seen, errors.New("got none")
		}
		m := mails[0]
		if got := fmt.Sprintf("<%s> %s: %s", m.env.From, strings.Join(m.env.Recipients, ","), m.data); got != text {
			return seen, fmt.Errorf("got %q", got)
		}
		return seen + 1, nil
	default:
		if !isSetting(kind) {
			return seen, errors.New("not a line of a dialog")
		}
	}
	return seen, nil
}

// hurry shortens times of sessions that are there already: what a client has to
// do before it is to be too slow needs all the time that a busy machine takes.
func hurry(s *Server, change func(*Options) error) error {
	s.connections.mu.Lock()
	defer s.connections.mu.Unlock()
	for w := range s.connections.conns {
		w.mu.Lock()
		defer w.mu.Unlock()
		o := Options{Listeners: make([]Listener, 1), Limits: w.clock.limits}
		if err := change(&o); err != nil {
			return err
		}
		w.clock.limits, w.limits.WriteTime = o.Limits, o.Limits.WriteTime
		now := time.Now()
		if !w.clock.lineEnd.IsZero() {
			w.clock.startLine(now)
		}
		if !w.clock.messageEnd.IsZero() {
			w.clock.messageEnd = now.Add(o.Limits.MessageTime)
		}
		if err := w.socket.SetReadDeadline(w.clock.deadline(now)); err != nil {
			return err
		}
	}
	return nil
}

func configure(o *Options, words []string) error {
	l := &o.Listeners[0]
	switch words[0] {
	case "deny", "allow":
		addRule(&o.Rules, words)
		return nil
	case "networks":
		l.Networks = nil
		return nil
	case "users":
		return addUsers(o)
	case "lmtp":
		l.Protocol = LMTP
		if len(words) > 1 {
			o.Backend = eachBackend{o.Backend.(*fakeBackend)}
		}
		return nil
	case "require_auth":
		l.RequireAuth = true
		return nil
	case "auth_without_tls":
		l.AuthWithoutTLS = true
		return nil
	case "tls":
		l.TLS = TLS{Mode: map[string]TLSMode{"starttls": StartTLS, "implicit": ImplicitTLS}[words[1]], SelfSigned: true}
		return nil
	}
	field := reflect.ValueOf(&o.Limits).Elem().FieldByName(words[1])
	if !field.IsValid() {
		return errors.New("no limit " + words[1])
	}
	if rate, ok := field.Addr().Interface().(*auth.Rate); ok {
		*rate = auth.Rate{Per: time.Hour}
		_, err := fmt.Sscan(words[2], &rate.Number)
		return err
	}
	if d, err := time.ParseDuration(words[2]); err == nil && field.Type() == reflect.TypeFor[time.Duration]() {
		field.SetInt(int64(d))
		return nil
	}
	n, err := strconv.ParseInt(words[2], 10, 64)
	field.SetInt(n)
	return err
}

// eachBackend refuses those whose local part says so.
type eachBackend struct{ *fakeBackend }

func (b eachBackend) MessageEach(ctx context.Context, env *Envelope, data []byte) (each []*reply.Reply) {
	r := b.Message(ctx, env, data)
	for _, rcpt := range env.Recipients {
		switch local, _, _ := strings.Cut(rcpt, "@"); local {
		case "full":
			each = append(each, reply.StorageFull())
		case "gone":
			each = append(each, reply.Suppressed(reply.Suppression{Address: rcpt, Reason: "hard bounce", HardBounce: true}))
		case "forgotten":
		default:
			each = append(each, r)
		}
	}
	return each
}

func patterns(entries ...string) policy.List {
	list, err := policy.Parse(entries)
	if err != nil {
		panic(err)
	}
	return list
}

// addRule takes "deny senders @b.test <>".
func addRule(rules *policy.Rules, words []string) {
	*map[string]*policy.List{
		"allow senders": &rules.AllowSenders, "deny senders": &rules.DenySenders,
		"allow recipients": &rules.AllowRecipients, "deny recipients": &rules.DenyRecipients,
	}[words[0]+" "+words[1]] = patterns(words[2:]...)
}

func addUsers(o *Options) (err error) {
	hash := func(password string) string {
		h, err := bcrypt.GenerateFromPassword([]byte(password), bcrypt.MinCost)
		if err != nil {
			panic(err)
		}
		return string(h)
	}
	o.Users, err = auth.New(auth.Options{Delay: time.Millisecond, Users: []auth.User{
		{Name: "ann", Hash: hash("right")},
		{Name: "cat", Hash: hash("cat's"), Rate: auth.Rate{Number: 3, Per: time.Hour}},
		{Name: "bob", Hash: hash("bob's"), Rules: policy.Rules{AllowSenders: patterns("bob@b.test")}},
	}})
	return err
}

func unescape(s string) (string, error) {
	var b bytes.Buffer
	for len(s) > 0 {
		if s[0] == '{' {
			body, rest, _ := strings.Cut(s[1:], "}")
			i := strings.LastIndexByte(body, '*')
			n, err := strconv.Atoi(body[i+1:])
			if err != nil {
				return "", err
			}
			text, err := unescape(body[:i])
			if err != nil {
				return "", err
			}
			b.WriteString(strings.Repeat(text, n))
			s = rest
			continue
		}
		if strings.HasPrefix(s, `\0`) {
			b.WriteByte(0)
			s = s[2:]
			continue
		}
		if s[0] != '\\' {
			b.WriteByte(s[0])
			s = s[1:]
			continue
		}
		r, _, rest, err := strconv.UnquoteChar(s, 0)
		if err != nil {
			return "", fmt.Errorf("%q: %w", s, err)
		}
		b.WriteByte(byte(r))
		s = rest
	}
	return b.String(), nil
}
