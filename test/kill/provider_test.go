package kill

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/smtp2rest/smtp2rest/relay/provider/nexuspromail/sandbox"
)

// killProvider is the sandbox behind a look at every call: that its body is
// whole and the right one. It lives in the test, so it survives the relay.
type killProvider struct {
	box      *sandbox.Server
	accounts []string // but the default one
	handler  http.Handler
	web      *http.Server
	address  string

	mu      sync.Mutex
	seen    map[string]*killSeen // by recipient
	bad     []string             // what must not have come
	changed chan struct{}        // closed at the next call's end
}

// killSeen is what came for one address.
type killSeen struct {
	key   string
	sum   [sha256.Size]byte // of the body
	calls []killCall
}

// killCall is one call; life is that of the relay that made it.
type killCall struct {
	life     string
	account  string // whose key it had
	from     string
	accepted bool
	lost     bool // and never answered
}

func newKillProvider(t *testing.T, accounts ...string) *killProvider {
	more := map[string]sandbox.Options{}
	for _, name := range accounts {
		more[name] = sandbox.Options{Key: killKey(name)}
	}
	p := &killProvider{
		box: sandbox.New(sandbox.Options{Keep: -1, Accounts: more}), accounts: accounts, seen: map[string]*killSeen{}, changed: make(chan struct{}),
	}
	p.handler = p.box.Handler()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p.address = ln.Addr().String()
	p.web = &http.Server{Handler: http.HandlerFunc(p.serve), ReadHeaderTimeout: 10 * time.Second}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = p.web.Serve(ln) // until Close
	}()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
		defer cancel()
		if err := p.box.Stop(ctx); err != nil {
			t.Error(err)
		}
		_ = p.web.Close()
		<-done
	})
	return p
}

// killAnswer tells what the sandbox answered, 0 for nothing.
type killAnswer struct {
	http.ResponseWriter
	status int
}

func (a *killAnswer) WriteHeader(status int) {
	a.status = status
	a.ResponseWriter.WriteHeader(status)
}

func (a *killAnswer) Unwrap() http.ResponseWriter { return a.ResponseWriter }

// url is the API for one life of the relay: a call names the life it comes
// from, even when it is read after that has ended.
func (p *killProvider) url(life int) string { return fmt.Sprintf("http://%s/%d/api", p.address, life) }

func (p *killProvider) serve(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return // the relay died in the middle of its request: nothing was sent
	}
	life, path, _ := strings.Cut(r.URL.Path[1:], "/")
	r.URL.Path = "/" + path
	account := killAccountOfKey(r.Header.Get("Authorization"))
	to, nth := p.check(account, r.Header.Get("Idempotency-Key"), body)
	r.Body = io.NopCloser(bytes.NewReader(body))
	a := &killAnswer{ResponseWriter: w}
	p.handler.ServeHTTP(a, r)
	p.mu.Lock()
	defer p.mu.Unlock()
	lost := a.status == 0 && strings.HasPrefix(to, "lost")
	call := &p.seen[to].calls[nth]
	call.life, call.lost, call.accepted = life, lost, lost || a.status == http.StatusOK
	close(p.changed)
	p.changed = make(chan struct{})
}

// check looks at one call's body and returns its recipient, and which call for
// him it is: the next may come before this one has returned from the sandbox.
func (p *killProvider) check(account, key string, body []byte) (to string, nth int) {
	var c struct {
		To, From      struct{ Email string }
		Subject, Text string
		HTML          string
	}
	err := json.Unmarshal(body, &c)
	if err == nil {
		err = checkKillBody(c.To.Email, c.From.Email, c.Subject, c.Text, c.HTML)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	sum := sha256.Sum256(body)
	if len(p.accounts) > 0 { // another account may send it, from its own sender
		sum = sha256.Sum256([]byte(c.Subject + "\x00" + c.Text + "\x00" + c.HTML))
	}
	s := p.seen[c.To.Email]
	if s == nil {
		s = &killSeen{key: key, sum: sum}
		p.seen[c.To.Email] = s
	}
	switch {
	case err != nil:
		p.bad = append(p.bad, fmt.Sprintf("for %s came a body that is not its own: %v", c.To.Email, err))
	case key == "":
		p.bad = append(p.bad, "a call without an idempotency key for "+c.To.Email)
	case s.key != key:
		p.bad = append(p.bad, fmt.Sprintf("two keys for %s: %s, %s", c.To.Email, s.key, key))
	case s.sum != sum:
		p.bad = append(p.bad, "two bodies for "+c.To.Email)
	}
	s.calls = append(s.calls, killCall{account: account, from: c.From.Email})
	return c.To.Email, len(s.calls) - 1
}

// checkKillBody says what is wrong with the fields of a call.
func checkKillBody(to, from, subject, text, html string) error {
	local, domain, _ := strings.Cut(to, "@")
	if id, toSender := strings.CutPrefix(local, "s-"); toSender {
		if !strings.Contains(text, "suppressed@"+killDomain(id)) {
			return fmt.Errorf("a bounce that does not name the recipient: %.300q", text)
		}
		return nil
	}
	id := subject
	head, rest, _ := strings.Cut(strings.Join(strings.Fields(text), " "), " ")
	sum, rest, _ := strings.Cut(rest, " ")
	switch {
	case domain != killDomain(id):
		return fmt.Errorf("subject %s", subject)
	case from != killSender(id) && !killRewritten(from):
		return fmt.Errorf("from %s", from)
	case head != id:
		return fmt.Errorf("text of %s", head)
	case sum != killSum(rest):
		return fmt.Errorf("text of %d bytes with another sum", len(text))
	case !strings.Contains(html, sum) || len(html) < len(rest):
		return fmt.Errorf("html of %d bytes for a text of %d", len(html), len(text))
	}
	return nil
}

// delay sets how long calls take.
func (p *killProvider) delay(t *testing.T, latency time.Duration) {
	t.Helper()
	for _, box := range append([]string{""}, p.accounts...) {
		of := p.box
		if box != "" {
			of = p.box.Account(box)
		}
		if err := of.SetLatency(latency); err != nil {
			t.Fatal(err)
		}
	}
}

// await returns when each address was sent something, or, when no call at all
// came for so long that none is to be expected, those that were not.
func (p *killProvider) await(owed []string) (missing []string) {
	const quiet = 20 * time.Second
	silence := time.NewTimer(quiet)
	defer silence.Stop()
	for {
		p.mu.Lock()
		changed := p.changed
		for len(owed) > 0 && p.seen[owed[0]].acceptedCalls() > 0 {
			owed = owed[1:]
		}
		p.mu.Unlock()
		if len(owed) == 0 {
			return nil
		}
		silence.Reset(quiet)
		select {
		case <-changed:
		case <-silence.C:
			p.mu.Lock()
			defer p.mu.Unlock()
			return slices.DeleteFunc(owed, func(to string) bool { return p.seen[to].acceptedCalls() > 0 })
		}
	}
}

func (s *killSeen) acceptedCalls() int {
	n := 0
	if s != nil {
		for _, c := range s.calls {
			if c.accepted {
				n++
			}
		}
	}
	return n
}
