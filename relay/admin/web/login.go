package web

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/hex"
	"errors"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/hashicorp/golang-lru/v2/simplelru"
	"golang.org/x/time/rate"

	"github.com/smtp2rest/smtp2rest/relay/internal/webserver"
)

// NewToken returns a token that nobody guesses: 130 random bits.
func NewToken() string { return "s2r_" + random() }

// Hash returns what is stored of a token. A fast hash is enough, because a token is
// random and not somebody's password.
func Hash(token string) string {
	sum := sha256.Sum256([]byte(token))
	return "sha256:" + hex.EncodeToString(sum[:])
}

func random() string { return rand.Text() }

func same(a, b string) bool { return subtle.ConstantTimeCompare([]byte(a), []byte(b)) == 1 }

// who is the operator of a request.
type who struct {
	name string
	role Role
	csrf string
	open bool // nobody logs in here
}

const (
	cookieName  = "smtp2rest_session"
	sessionTime = 12 * time.Hour
	maxSessions = 1000
)

// session is an operator who is logged in. The cookie has the key of it in sessions, and
// only its hash is kept.
type session struct {
	operator Operator
	csrf     string
	since    time.Time
}

type sessions struct {
	mu   sync.Mutex
	list *simplelru.LRU[string, session]
}

func newSessions() *sessions {
	list, _ := simplelru.NewLRU[string, session](maxSessions, nil) // fails only without room
	return &sessions{list: list}
}

// begin returns the cookie of a new session. It never takes one that the client brings.
func (s *sessions) begin(o Operator, now time.Time) string {
	key := random()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.list.Add(Hash(key), session{operator: o, csrf: random(), since: now})
	return key
}

func (s *sessions) get(key string, now time.Time) (session, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	one, ok := s.list.Get(Hash(key))
	if ok && now.Sub(one.since) > sessionTime {
		s.list.Remove(Hash(key))
		ok = false
	}
	return one, ok
}

func (s *sessions) end(key string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.list.Remove(Hash(key))
}

// identify says who asks. An operator whose token was taken out of the configuration is
// out at once, and a new role counts at once.
func (s *Site) identify(a Access, r *http.Request) (who, bool) {
	if a.Open != "" {
		return who{name: a.Open, role: Bodies, csrf: s.openCSRF, open: true}, true
	}
	c, err := r.Cookie(cookieName)
	if err != nil {
		return who{}, false
	}
	one, ok := s.sessions.get(c.Value, time.Now())
	if !ok {
		return who{}, false
	}
	for _, o := range a.Operators {
		if o.Name == one.operator.Name && same(o.Hash, one.operator.Hash) {
			webserver.Trust(r.Context())
			return who{name: o.Name, role: o.Role, csrf: one.csrf}, true
		}
	}
	return who{}, false
}

// attempts bounds how often a token can be tried from one address. Nobody guesses a
// token; this bounds what trying costs.
type attempts struct {
	mu   sync.Mutex
	from *simplelru.LRU[netip.Prefix, *rate.Limiter]
}

const (
	freeAttempts = 10 // at once
	attemptEvery = 30 * time.Second
	maxAddresses = 10_000
)

func newAttempts() *attempts {
	from, _ := simplelru.NewLRU[netip.Prefix, *rate.Limiter](maxAddresses, nil) // fails only without room
	return &attempts{from: from}
}

// may reports whether a client may try a token.
func (a *attempts) may(remote string, now time.Time) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.of(remote).TokensAt(now) >= 1
}

// wrong counts a token that was wrong.
func (a *attempts) wrong(remote string, now time.Time) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.of(remote).AllowN(now, 1)
}

func (a *attempts) of(remote string) *rate.Limiter {
	from := client(remote)
	limit, ok := a.from.Get(from)
	if !ok {
		limit = rate.NewLimiter(rate.Every(attemptEvery), freeAttempts)
		a.from.Add(from, limit)
	}
	return limit
}

// client is the network that counts as one client.
func client(remote string) netip.Prefix {
	host, _, _ := net.SplitHostPort(remote)
	addr, err := netip.ParseAddr(host)
	if err != nil {
		return netip.Prefix{}
	}
	bits := 32
	if addr = addr.Unmap().WithZone(""); addr.Is6() {
		bits = 64
	}
	p, _ := addr.Prefix(bits) // the bits are right
	return p
}

// login is the only page for who is not logged in.
func (s *Site) login(v *visit) {
	v.page.title = "Log in"
	next := s.safeNext(v.r.URL.Query().Get("next"))
	show := func(status int, problem string) {
		v.show(status, "login", struct {
			Problem, Next string
			Nobody        bool
		}{problem, next, len(v.access.Operators) == 0})
	}
	if _, in := s.identify(v.access, v.r); in {
		relocate(v.w, next, http.StatusSeeOther)
		return
	}
	if v.r.Method != http.MethodPost {
		show(http.StatusOK, "")
		return
	}
	if err := v.parse(); err != nil {
		v.fail(formStatus(err), err)
		return
	}
	next = s.safeNext(v.r.PostForm.Get("next"))
	if !s.attempts.may(v.r.RemoteAddr, time.Now()) {
		v.w.Header().Set("Retry-After", "60")
		show(http.StatusTooManyRequests, "Too many attempts from your address. Try again in a minute.")
		return
	}
	given := Hash(strings.TrimSpace(v.r.PostForm.Get("token")))
	var found Operator
	for _, o := range v.access.Operators { // all of them, so that the time tells nothing
		if same(given, o.Hash) {
			found = o
		}
	}
	if found.Name == "" {
		s.attempts.wrong(v.r.RemoteAddr, time.Now())
		s.opt.Log.Warn("a token for the page was wrong", "client", v.r.RemoteAddr)
		show(http.StatusUnauthorized, "This token is not valid.")
		return
	}
	s.opt.Log.Info("an operator logged in", "operator", found.Name, "role", found.Role.String(), "client", v.r.RemoteAddr)
	// Without Path a cookie is for the directory of the page, whatever the prefix of a
	// proxy is.
	http.SetCookie(v.w, &http.Cookie{
		Name: cookieName, Value: s.sessions.begin(found, time.Now()), MaxAge: int(sessionTime.Seconds()),
		HttpOnly: true, SameSite: http.SameSiteStrictMode, Secure: v.overTLS(),
	})
	relocate(v.w, next, http.StatusSeeOther)
}

// overTLS also believes a proxy. A client that lies gets a cookie that it does not send.
func (v *visit) overTLS() bool {
	return v.r.TLS != nil || strings.EqualFold(v.r.Header.Get("X-Forwarded-Proto"), "https")
}

// safeNext returns the address of a page of this site, and never one of another site.
func (s *Site) safeNext(next string) string {
	u, err := url.Parse(next)
	if err != nil || u.Scheme != "" || u.Host != "" || u.Opaque != "" || u.User != nil {
		return "./"
	}
	known := slices.ContainsFunc(s.pages(), func(p page) bool { return p.name == u.Path && p.name != "logout" })
	if u.Path == "" || !known {
		return "./"
	}
	if u.RawQuery == "" {
		return u.Path
	}
	return u.Path + "?" + u.RawQuery
}

func (s *Site) askLogout(v *visit) error { return v.goTo("./", nil) }

func (s *Site) logout(v *visit) error {
	if v.who.open {
		return errors.New("nobody is logged in here")
	}
	if c, err := v.r.Cookie(cookieName); err == nil {
		s.sessions.end(c.Value)
	}
	http.SetCookie(v.w, &http.Cookie{Name: cookieName, MaxAge: -1, HttpOnly: true, SameSite: http.SameSiteStrictMode, Secure: v.overTLS()})
	return v.goTo("login", nil)
}
